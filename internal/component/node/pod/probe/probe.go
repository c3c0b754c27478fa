// Package probe asks containers whether they are up, the way the kubelet does.
//
// Check runs one attempt; Watch repeats it with Kubernetes' thresholds and periods, and much more
// often until the first success, so that readiness is known within a millisecond.
package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ErrUnhealthy marks an answer that means "no", as opposed to a probe that could not be run.
var ErrUnhealthy = errors.New("unhealthy")

// Dialer connects to the pod.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Exec runs a command in the container and returns its exit code and output.
type Exec func(ctx context.Context, command []string) (exitCode int, output []byte, err error)

// Target is what a container's probes are about.
type Target struct {
	Host  string // the pod's address, for probes that name no other
	Ports []corev1.ContainerPort
	Dial  Dialer
	Exec  Exec
	Agent string // User-Agent, "kube-probe/1.36"
	// Listening is a port that must accept connections once a command succeeded, 0 for none.
	Listening int32
	// HTTP2 has HTTP requests without TLS tried in HTTP/2 first.
	HTTP2 bool
}

const maxBody = 10 << 10 // of an answer that is kept for the event

// Check makes one attempt; nil means healthy. The error's text is what the event says.
func Check(ctx context.Context, h *corev1.ProbeHandler, t Target) error {
	switch {
	case h.Exec != nil:
		return t.exec(ctx, h.Exec.Command)
	case h.HTTPGet != nil:
		return t.get(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		return t.tcp(ctx, h.TCPSocket)
	case h.GRPC != nil:
		return t.grpc(ctx, h.GRPC)
	}
	return errors.New("the probe has no handler")
}

func (t Target) exec(ctx context.Context, command []string) error {
	code, out, err := t.Exec(ctx, command)
	if ctx.Err() != nil {
		return fmt.Errorf("%w: command timed out: %q", ErrUnhealthy, strings.Join(command, " "))
	}
	if err != nil {
		return fmt.Errorf("running the probe's command: %w", err)
	}
	if code != 0 {
		text := strings.TrimSpace(string(out))
		if text == "" {
			text = "exit status " + strconv.Itoa(code)
		}
		return fmt.Errorf("%w: %s", ErrUnhealthy, text)
	}
	if t.Listening == 0 {
		return nil
	}
	return t.tcp(ctx, &corev1.TCPSocketAction{Port: intstr.FromInt32(t.Listening)})
}

func (t Target) tcp(ctx context.Context, a *corev1.TCPSocketAction) error {
	port, err := t.port(a.Port)
	if err != nil {
		return err
	}
	conn, err := t.Dial(ctx, "tcp", net.JoinHostPort(or(a.Host, t.Host), port))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	return conn.Close()
}

// get makes the request in HTTP/1.1, unless HTTP/2 is to be tried and is healthy.
func (t Target) get(ctx context.Context, a *corev1.HTTPGetAction) error {
	if t.HTTP2 && a.Scheme != corev1.URISchemeHTTPS {
		protocols := &http.Protocols{}
		protocols.SetUnencryptedHTTP2(true)
		half := ctx
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			half, cancel = context.WithTimeout(ctx, time.Until(end)/2) // one that waits for more leaves time for HTTP/1.1
			defer cancel()
		}
		if t.getIn(half, a, protocols) == nil {
			return nil
		}
	}
	return t.getIn(ctx, a, nil)
}

// getIn follows redirects on the same host only; any status from 200 to 399 is healthy.
func (t Target) getIn(ctx context.Context, a *corev1.HTTPGetAction, protocols *http.Protocols) error {
	req, err := t.Request(ctx, a)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DialContext:        t.Dial,
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    AnyCertificate(),
		Protocols:          protocols,
	}
	client := http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != req.URL.Hostname() || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxBody)) // a cut body does not change the verdict
	if res.StatusCode >= http.StatusOK && res.StatusCode < http.StatusBadRequest {
		return nil
	}
	text := fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)
	if b := bytes.TrimSpace(body); len(b) > 0 && len(b) < 256 {
		text += ": " + string(b)
	}
	return fmt.Errorf("%w: %s", ErrUnhealthy, text)
}

// AnyCertificate accepts whatever the container shows: a probe asks only whether it answers.
func AnyCertificate() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // as the kubelet's probes
}

// Request builds the request of an httpGet probe or hook.
func (t Target) Request(ctx context.Context, a *corev1.HTTPGetAction) (*http.Request, error) {
	port, err := t.port(a.Port)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme = strings.ToLower(or(string(a.Scheme), "http"))
	u.Host = net.JoinHostPort(or(a.Host, t.Host), port)
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("building the probe's request: %w", err)
	}
	req.Header.Set("User-Agent", or(t.Agent, "kube-probe/1.36"))
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		switch http.CanonicalHeaderKey(h.Name) {
		case "Host":
			req.Host = h.Value
		case "User-Agent", "Accept":
			if h.Value == "" {
				req.Header.Del(h.Name)
			} else {
				req.Header.Set(h.Name, h.Value)
			}
		default:
			req.Header.Add(h.Name, h.Value)
		}
	}
	return req, nil
}

func (t Target) port(p intstr.IntOrString) (string, error) {
	n := p.IntValue()
	if p.Type == intstr.String {
		for _, c := range t.Ports {
			if c.Name == p.StrVal {
				n = int(c.ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return "", fmt.Errorf("there is no port %q", p.String())
	}
	return strconv.Itoa(n), nil
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

// RetryDial connects with short attempts: a first packet lost while a fresh interface comes up would
// otherwise cost the kernel's full second. A refused connection is an answer and returns at once.
func RetryDial(dial Dialer) Dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		for patience := 20 * time.Millisecond; ; patience = min(2*patience, time.Second) {
			try, cancel := context.WithTimeout(ctx, patience)
			conn, err := dial(try, network, address)
			late := try.Err() != nil
			cancel()
			if err == nil || ctx.Err() != nil || !late {
				return conn, err
			}
		}
	}
}

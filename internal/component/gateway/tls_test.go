package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/authority"
)

// keys is a gateway's certificates: each host's own, by an authority that can be changed.
type keys struct {
	t       *testing.T
	by      atomic.Pointer[authority.Authority]
	secrets atomic.Pointer[types.NamespacedName] // asked for last
}

func newKeys(t *testing.T) *keys {
	k := &keys{t: t}
	k.change()
	return k
}

func (k *keys) change() {
	a, err := authority.New("test", time.Now())
	if err != nil {
		k.t.Fatal(err)
	}
	k.by.Store(a)
}

func (k *keys) certificate(host string, secret types.NamespacedName) (*tls.Certificate, error) {
	k.secrets.Store(&secret)
	pair, err := k.by.Load().Sign([]string{host}, time.Now())
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	return &c, err
}

// tlsRig is a rig whose gateway is reached by TLS as well.
type tlsRig struct {
	*rig
	keys *keys
	addr string // of the listener for TLS; the rig's own is the other one's
}

func newTLSRig(t *testing.T, external bool, change ...func(*gateway.Config)) *tlsRig {
	t.Helper()
	k := newKeys(t)
	change = append(change, func(c *gateway.Config) { c.Certificate, c.TLSPort = k.certificate, 8443 })
	r := &tlsRig{rig: newRig(t, traffic.Settings{}, change...), keys: k}
	all := []traffic.Target{{Revision: rev, Percent: 100}}
	table, err := traffic.Build([]traffic.Rule{
		{Host: host, Targets: all, Secret: types.NamespacedName{Namespace: "default", Name: "hello"}},
		{Host: "secure.default.localhost", Targets: all, Redirect: true},
		{Host: "hello.default.svc.cluster.local", Targets: all, ClusterLocal: true, Redirect: true},
	}, map[types.NamespacedName]traffic.Settings{rev: {}})
	if err != nil {
		t.Fatal(err)
	}
	r.g.SetTable(table)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.g.ServeTLS(context.WithoutCancel(t.Context()), ln, external) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		if err := errors.Join(r.g.Shutdown(ctx), <-served); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serving TLS: %v", err)
		}
	})
	return r
}

// client connects to the gateway whatever the host, trusting the present authority.
func (r *tlsRig) client(http2 bool) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.keys.by.Load().PEM())
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", r.addr)
		},
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (r *tlsRig) get(c *http.Client, method, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res, errors.Join(err, res.Body.Close())
}

func TestTheNameAskedForChoosesTheCertificate(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t, true)
			r.serve(func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("Seen", req.Header.Get("X-Forwarded-Proto"))
			})
			res, err := r.get(r.client(http2), http.MethodGet, "https://"+host+"/")
			if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Seen") != "https" || res.Proto != name {
				t.Fatalf("%v %v", res, err)
			}
			if got := *r.keys.secrets.Load(); got.Name != "hello" {
				t.Errorf("the certificate of %s was asked for", got)
			}
			former := r.client(http2)
			r.keys.change()
			if _, err := r.get(r.client(http2), http.MethodGet, "https://"+host+"/"); err != nil {
				t.Errorf("a changed certificate is not shown: %v", err)
			}
			if _, err := r.get(former, http.MethodGet, "https://"+host+"/"); err == nil {
				t.Error("the former certificate is still shown")
			}
		})
	}
}

func TestNamesThatAreNotKnownGetNoCertificate(t *testing.T) {
	for name, c := range map[string]struct {
		external bool
		host     string
		ok       bool
	}{
		"a local name from outside": {true, "hello.default.svc.cluster.local", false},
		"a local name from inside":  {false, "hello.default.svc.cluster.local", true},
		"a name of nobody":          {true, "nobody.default.localhost", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t, c.external)
			r.serve(func(http.ResponseWriter, *http.Request) {})
			_, err := r.get(r.client(false), http.MethodGet, "https://"+c.host+"/")
			if (err == nil) != c.ok {
				t.Error(err)
			}
		})
	}
}

func TestOldProtocolsAreRefused(t *testing.T) {
	r := newTLSRig(t, true)
	conn, err := (&tls.Dialer{Config: &tls.Config{ServerName: host, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", r.addr)
	if err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestRedirects(t *testing.T) {
	proxy := func(c *gateway.Config) { c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	tests := map[string]struct {
		host, method, header string
		change               []func(*gateway.Config)
		status               int
		location             string
	}{
		"a host without":                    {host: host, status: 200},
		"a host with":                       {host: "secure.default.localhost", status: 301, location: "https://secure.default.localhost:8443/a?b=c"},
		"a host with, and a port":           {host: "secure.default.localhost:8080", status: 301, location: "https://secure.default.localhost:8443/a?b=c"},
		"what has a body keeps its method":  {host: "secure.default.localhost", method: http.MethodPost, status: 308, location: "https://secure.default.localhost:8443/a?b=c"},
		"a probe":                           {host: "secure.default.localhost", header: "K-Network-Probe: probe", status: 200},
		"what came by TLS to a proxy":       {host: "secure.default.localhost", header: "X-Forwarded-Proto: https", change: []func(*gateway.Config){proxy}, status: 200},
		"who only says that it came by TLS": {host: "secure.default.localhost", header: "X-Forwarded-Proto: https", status: 301, location: "https://secure.default.localhost:8443/a?b=c"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newTLSRig(t, true, tt.change...)
			r.serve(func(http.ResponseWriter, *http.Request) {})
			req := r.request(tt.method, "/a?b=c", "")
			req.Host = tt.host
			if key, value, ok := strings.Cut(tt.header, ": "); ok {
				req.Header.Set(key, value)
			}
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Header.Get("Location"); res.StatusCode != tt.status || got != tt.location {
				t.Errorf("%d to %q, want %d to %q", res.StatusCode, got, tt.status, tt.location)
			}
		})
	}
}

func TestInsideNothingIsRedirected(t *testing.T) {
	r := newTLSRig(t, true)
	r.serve(func(http.ResponseWriter, *http.Request) {})
	for _, name := range []string{"secure.default.localhost", "hello.default.svc.cluster.local"} {
		req := r.request(http.MethodGet, "/", "")
		req.Host = name
		w := httptest.NewRecorder()
		r.g.Handler(false).ServeHTTP(w, req)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d to %q", name, w.Code, w.Header().Get("Location"))
		}
	}
}

func TestPlainRequestsToTheTLSPortAreSentToTLS(t *testing.T) {
	r := newTLSRig(t, true)
	for name, tt := range map[string]struct {
		host     string
		status   int
		location string
	}{
		"a host":      {host, 301, "https://" + host + ":%s/x"},
		"nobody's is": {"nobody.localhost", 404, ""},
	} {
		_, port, _ := net.SplitHostPort(r.addr)
		res, err := r.get(r.client(false), http.MethodGet, "http://"+tt.host+":"+port+"/x")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := res.Header.Get("Location"); res.StatusCode != tt.status || got != strings.Replace(tt.location, "%s", port, 1) {
			t.Errorf("%s: %d to %q", name, res.StatusCode, got)
		}
	}
}

func TestUpgradesAndLongBodiesGoByTLS(t *testing.T) {
	r := newTLSRig(t, true)
	r.serve(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") == "" {
			_, _ = io.Copy(w, req.Body)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	})
	long := strings.Repeat("0123456789", 200_000)
	res, err := r.client(true).Post("https://"+host+"/", "text/plain", strings.NewReader(long))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || string(body) != long {
		t.Errorf("%d of %d bytes came back, %v", len(body), len(long), err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.keys.by.Load().PEM())
	conn, err := (&tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: pool, NextProtos: []string{"http/1.1"}}}).DialContext(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	switched, err := http.ReadResponse(in, nil)
	if err != nil || switched.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", switched, err)
	}
	_, _ = io.WriteString(conn, "ping\n")
	if line, err := in.ReadString('\n'); line != "ping\n" {
		t.Errorf("%q %v", line, err)
	}
}

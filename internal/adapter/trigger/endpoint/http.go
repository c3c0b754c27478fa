package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// largest is how much of an answer is read.
	largest = 16 << 20
	// connections is how many lead to one server, which then answers one question after the other.
	connections = 16
)

// HTTPConfig is what clients need to ask over HTTP.
type HTTPConfig struct {
	// Dial and TLS are those of all triggers.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	TLS  *tls.Config
	// NoKeepAlive has each request have a connection of its own; it is the same for all triggers.
	NoKeepAlive bool
	// Certificate is what this trigger takes to know a server and to be known by it.
	Certificate Certificate
	// Timeout bounds a request.
	Timeout time.Duration
	// Token, if any, gets what requests are signed with, and TokenKey names all that it depends on.
	// The client is the one to get it with.
	Token    func(ctx context.Context, client *http.Client) (*Token, error)
	TokenKey string
	// Asked, if any, is told of each request: its answer's status, 0 without one, and how long that took.
	Asked func(status int, took time.Duration)
}

// HTTP asks servers over HTTP. All triggers that use the same certificates share its connections.
type HTTP struct {
	client  http.Client
	asked   func(status int, took time.Duration)
	release func()
}

// AcquireHTTP returns a client to be closed when it is not needed any more.
func AcquireHTTP(p *Pool, c HTTPConfig) (*HTTP, error) {
	key := fmt.Sprintf("http %q %v", []string{c.Certificate.CA, c.Certificate.Cert, c.Certificate.Key, c.Certificate.KeyPassword}, c.Certificate.Unsafe)
	transport, release, err := Acquire(p, key, func() (*http.Transport, func(), error) { return transport(c) })
	if err != nil {
		return nil, err
	}
	h := &HTTP{client: http.Client{Transport: transport, Timeout: c.Timeout}, asked: c.Asked, release: release}
	if c.Token == nil {
		return h, nil
	}
	tokens, give, err := Acquire(p, key+" "+c.TokenKey, func() (*tokens, func(), error) {
		return newTokens(c.Token, &http.Client{Transport: transport, Timeout: c.Timeout}), func() {}, nil
	})
	if err != nil {
		release()
		return nil, err
	}
	h.client.Transport = &signer{tokens: tokens, next: transport}
	h.release = func() { give(); release() }
	return h, nil
}

func transport(c HTTPConfig) (*http.Transport, func(), error) {
	config, err := c.Certificate.TLS(c.TLS)
	if err != nil {
		return nil, nil, err
	}
	t := &http.Transport{
		DialContext: c.Dial, Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second,
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: 90 * time.Second, DisableKeepAlives: c.NoKeepAlive,
	}
	return t, t.CloseIdleConnections, nil
}

// Close lets go of the client.
func (h *HTTP) Close() { h.release() }

// Get returns a request for an address, which says nothing of it if it is none: it may hold a password.
func Get(ctx context.Context, address string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("its address is not a valid URL")
	}
	return r, nil
}

// Do sends a request and returns the status and the body of the answer. Its errors tell where the
// request went, but neither its query nor its user.
func (h *HTTP) Do(r *http.Request) (status int, body []byte, err error) {
	began := time.Now()
	response, err := h.client.Do(r)
	if h.asked != nil {
		answered := 0
		if err == nil {
			answered = response.StatusCode
		}
		h.asked(answered, time.Since(began))
	}
	if err != nil {
		return 0, nil, fmt.Errorf("asking %s: %w", place(r.URL), bare(err))
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, largest+1))
	if err == nil && len(body) > largest {
		err = fmt.Errorf("it is longer than %d MiB", largest>>20)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("reading the answer of %s: %w", place(r.URL), bare(err))
	}
	return response.StatusCode, body, nil
}

// place returns what may be told of an address.
func place(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// bare returns an error without the address that clients put into it.
func bare(err error) error {
	for {
		var about *url.Error
		if !errors.As(err, &about) {
			return err
		}
		err = about.Err
	}
}

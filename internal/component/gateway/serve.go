package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"

	"ebb.dev/ebb/internal/component/gateway/mixed"
)

// Bounds on clients.
const (
	maxHeaderBytes    = 128 << 10
	readHeaderTimeout = 30 * time.Second
	clientIdle        = 3 * time.Minute
	maxStreams        = 1000
)

// connKey finds the client's connection in a request's context.
type connKey struct{}

// clientConn returns the connection a request came by, nil if it is not known.
func clientConn(ctx context.Context) net.Conn {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	return conn
}

// Serve accepts clients until Shutdown or until ctx ends, which cuts off requests in flight.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener, external bool) error {
	return g.serve(ctx, g.server(g.Handler(external)), ln)
}

// ServeRevisions is Serve for a listener that stands for Knative's activator; see RevisionHandler.
func (g *Gateway) ServeRevisions(ctx context.Context, ln net.Listener) error {
	return g.serve(ctx, g.server(g.RevisionHandler()), ln)
}

// serve runs a server until Shutdown or until ctx ends.
func (g *Gateway) serve(ctx context.Context, srv *http.Server, ln net.Listener) error {
	if err := http2.ConfigureServer(srv, &http2.Server{MaxConcurrentStreams: maxStreams, IdleTimeout: clientIdle}); err != nil {
		return fmt.Errorf("setting up HTTP/2: %w", err)
	}
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		return ln.Close()
	}
	g.servers[srv] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.servers, srv)
	}()
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", ln.Addr(), err)
	}
	return nil
}

// ServeTLS is Serve for clients that speak TLS: the name they ask for chooses the certificate, and
// they choose HTTP/2 or HTTP/1.1. Those that speak plain HTTP here are sent to https.
func (g *Gateway) ServeTLS(ctx context.Context, ln net.Listener, external bool) error {
	if g.config.Certificate == nil {
		return errors.Join(errors.New("serving TLS: there are no certificates"), ln.Close())
	}
	parts := mixed.Split(ln, readHeaderTimeout)
	plain := &http.Server{
		Handler: http.HandlerFunc(g.sendToTLS), ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: clientIdle, MaxHeaderBytes: maxHeaderBytes,
	}
	ended := make(chan error, 1)
	go func() { ended <- g.serve(ctx, plain, parts.Plain) }()
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return g.certificate(hello, external) },
	}
	err := g.Serve(ctx, tls.NewListener(parts.TLS, config), external)
	return errors.Join(err, parts.Close(), <-ended)
}

// certificate is for the host the client names, if a route has it.
func (g *Gateway) certificate(hello *tls.ClientHelloInfo, external bool) (*tls.Certificate, error) {
	secret, ok := g.state.Load().table.Has(hello.ServerName, external)
	if !ok {
		return nil, fmt.Errorf("no route has the host %q", hello.ServerName)
	}
	return g.config.Certificate(strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")), secret)
}

// server returns the HTTP server for one side.
func (g *Gateway) server(handler http.Handler) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       clientIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		// OPTIONS * is the application's to answer.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(g.config.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, mixed.Bare(conn))
		},
	}
}

// Shutdown stops accepting and returns once all requests have ended. When ctx ends first, those left
// are cut off. Tunnels (WebSocket) go on until then too, and are closed at the end.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.stopped = true
	servers := make([]*http.Server, 0, len(g.servers))
	for srv := range g.servers {
		servers = append(servers, srv)
	}
	g.mu.Unlock()
	var errs []error
	for _, srv := range servers {
		if err := srv.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("waiting for requests to end: %w", err), srv.Close())
		}
	}
	g.mu.Lock()
	tunnels := make([]*tunnel, 0, len(g.tunnels))
	for t := range g.tunnels {
		tunnels = append(tunnels, t)
	}
	g.mu.Unlock()
	for _, t := range tunnels {
		t.close()
	}
	return errors.Join(errs...)
}

// upgradeH2C serves requests that ask to switch to HTTP/2 on a plain connection. One with a body is
// served as HTTP/1.1 instead, as a server may: the body would have to be held in memory.
func upgradeH2C(next http.Handler) http.Handler {
	upgrader := h2c.NewHandler(next, &http2.Server{MaxConcurrentStreams: maxStreams, IdleTimeout: clientIdle})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asksH2C(r) {
			upgrader.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func asksH2C(r *http.Request) bool {
	up := r.Header["Upgrade"]
	return up != nil && r.ProtoMajor == 1 && strings.EqualFold(up[0], "h2c") && r.Body == http.NoBody &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "http2-settings")
}

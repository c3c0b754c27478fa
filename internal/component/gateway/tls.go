package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ebb.dev/ebb/internal/domain/traffic"
)

// handshakeRecord is the first byte of every TLS connection; no HTTP request begins with it.
const handshakeRecord = 0x16

// acceptAgain is the pause after a connection could not be accepted for want of something that comes
// back.
const acceptAgain = 50 * time.Millisecond

// ServeTLS is Serve for clients that speak TLS: the name they ask for chooses the certificate, and
// they choose HTTP/2 or HTTP/1.1. Those that speak plain HTTP here are sent to https.
func (g *Gateway) ServeTLS(ctx context.Context, ln net.Listener, external bool) error {
	if g.config.Certificate == nil {
		return errors.Join(errors.New("serving TLS: there are no certificates"), ln.Close())
	}
	parts := split(ln)
	plain := &http.Server{
		Handler: http.HandlerFunc(g.sendToTLS), ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: clientIdle, MaxHeaderBytes: maxHeaderBytes,
	}
	ended := make(chan error, 1)
	go func() { ended <- g.serve(ctx, plain, parts.plain) }()
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return g.certificate(hello, external) },
	}
	err := g.Serve(ctx, tls.NewListener(parts.tls, config), external)
	return errors.Join(err, parts.Close(), <-ended)
}

// certificate is for the host the client names, if a route has it.
func (g *Gateway) certificate(hello *tls.ClientHelloInfo, external bool) (*tls.Certificate, error) {
	rule, ok := g.state.Load().table.Match(hello.ServerName, external)
	if !ok {
		return nil, fmt.Errorf("no route has the host %q", hello.ServerName)
	}
	return g.config.Certificate(rule.Host, rule.Secret)
}

// redirect answers a plain request from outside to a host that is to be reached by TLS.
func (f *front) redirect(rule *traffic.Rule, w http.ResponseWriter, r *http.Request) bool {
	if !rule.Redirect || !f.external || r.TLS != nil {
		return false
	}
	if f.g.trusted(peerAddress(r.RemoteAddr)) && strings.EqualFold(r.Header.Get(headerForwardProto), "https") {
		return false // a proxy in front has the TLS
	}
	host := rule.Host
	if port := f.g.config.TLSPort; port != 0 && port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	}
	toTLS(host, w, r)
	return true
}

// sendToTLS answers plain requests on a port for TLS.
func (g *Gateway) sendToTLS(w http.ResponseWriter, r *http.Request) {
	if _, ok := g.state.Load().table.Match(r.Host, false); !ok {
		g.refuseHost(w, r)
		return
	}
	toTLS(r.Host, w, r)
}

// toTLS redirects for good. Only what has no body may be asked for anew in another way, so other
// methods get the status that keeps them.
func toTLS(host string, w http.ResponseWriter, r *http.Request) {
	status := http.StatusPermanentRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	path := r.URL.RequestURI()
	if !strings.HasPrefix(path, "/") {
		path = "/" // of OPTIONS *
	}
	h := w.Header()
	h.Set("Location", "https://"+host+path)
	h.Set("Connection", "close") // the port, or what is spoken on it, is another from now on
	h.Set("Content-Length", "0")
	w.WriteHeader(status)
}

// parts are a listener's connections, by what clients speak first.
type parts struct {
	net.Listener
	tls, plain *part
	done       chan struct{}
}

// part is one kind of connections as a listener.
type part struct {
	*parts
	conns chan net.Conn
}

// split tells the connections of a listener apart.
func split(ln net.Listener) *parts {
	p := &parts{Listener: ln, done: make(chan struct{})}
	p.tls, p.plain = &part{p, make(chan net.Conn)}, &part{p, make(chan net.Conn)}
	go p.run()
	return p
}

// run accepts until the listener is closed.
func (p *parts) run() {
	defer close(p.done)
	for {
		conn, err := p.Accept()
		switch {
		case err == nil:
			go p.sort(conn)
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			<-time.After(acceptAgain)
		default:
			return
		}
	}
}

// sort looks at the first byte and hands the connection over.
func (p *parts) sort(conn net.Conn) {
	begun := &begunConn{Conn: conn}
	_ = conn.SetReadDeadline(time.Now().Add(readHeaderTimeout))
	if _, err := conn.Read(begun.first[:]); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	begun.unread = true
	to := p.plain
	if begun.first[0] == handshakeRecord {
		to = p.tls
	}
	select {
	case to.conns <- begun:
	case <-p.done:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (p *part) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// begunConn is a connection whose first byte was read to see what is spoken.
type begunConn struct {
	net.Conn
	first  [1]byte
	unread bool
}

// Read gives the first byte back, once.
func (c *begunConn) Read(p []byte) (int, error) {
	if c.unread && len(p) > 0 {
		c.unread = false
		p[0] = c.first[0]
		return 1, nil
	}
	return c.Conn.Read(p)
}

// bare is the connection below TLS, which the kernel can be asked about.
func bare(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if b, ok := conn.(*begunConn); ok {
		conn = b.Conn
	}
	return conn
}

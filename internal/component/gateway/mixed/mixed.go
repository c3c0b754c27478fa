// Package mixed tells the connections of one listener apart by what clients speak first: TLS, or
// anything else.
package mixed

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"
)

// handshakeRecord is the first byte of every TLS connection; no HTTP request begins with it.
const handshakeRecord = 0x16

// acceptAgain is the pause after a connection could not be accepted for want of something that comes
// back.
const acceptAgain = 50 * time.Millisecond

// A Listener hands out the connections of another one, in two kinds.
type Listener struct {
	net.Listener
	// TLS has those that begin a handshake, Plain the others. Closing either closes both.
	TLS, Plain net.Listener

	tls, plain *part
	patience   time.Duration
	done       chan struct{}
}

// part is one kind of connections as a listener.
type part struct {
	*Listener
	conns chan net.Conn
}

// Split tells the connections of a listener apart. Clients that say nothing for longer than patience
// are left.
func Split(ln net.Listener, patience time.Duration) *Listener {
	l := &Listener{Listener: ln, patience: patience, done: make(chan struct{})}
	l.tls, l.plain = &part{l, make(chan net.Conn)}, &part{l, make(chan net.Conn)}
	l.TLS, l.Plain = l.tls, l.plain
	go l.run()
	return l
}

// run accepts until the listener is closed.
func (l *Listener) run() {
	defer close(l.done)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			go l.sort(conn)
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			<-time.After(acceptAgain)
		default:
			return
		}
	}
}

// sort looks at the first byte and hands the connection over.
func (l *Listener) sort(conn net.Conn) {
	begun := &begunConn{Conn: conn}
	_ = conn.SetReadDeadline(time.Now().Add(l.patience))
	if _, err := conn.Read(begun.first[:]); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	begun.unread = true
	to := l.plain
	if begun.first[0] == handshakeRecord {
		to = l.tls
	}
	select {
	case to.conns <- begun:
	case <-l.done:
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

// Bare is the connection below TLS, which the kernel can be asked about.
func Bare(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if b, ok := conn.(*begunConn); ok {
		conn = b.Conn
	}
	return conn
}

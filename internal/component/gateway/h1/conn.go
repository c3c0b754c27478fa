// Package h1 speaks HTTP/1.1 to one instance over connections that are kept.
//
// One goroutine writes a request and reads its response, without the hand-overs of a general
// client; a second one appears only while a request body streams. The package knows what reached the
// instance: an exchange that failed says whether the same request may be sent again.
package h1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// How an exchange can end without a response; callers use errors.Is.
var (
	// ErrUnreachable means that no connection could be made.
	ErrUnreachable = errors.New("unreachable")
	// ErrUnsent means that the connection was closed before any byte of the request reached the
	// instance: sending it again is safe for any method.
	ErrUnsent = errors.New("closed before the request arrived")
	// ErrDied means that the connection ended before the first byte of a response.
	ErrDied = errors.New("connection ended before a response")
	// ErrMalformed means that the instance's answer is not HTTP, or not such as can be passed on safely.
	ErrMalformed = errors.New("malformed response")
)

// bufferSize is that of a connection's read and write buffers.
const bufferSize = 4 << 10

// Conn is a connection to an instance. One goroutine at a time owns it; Close may be called by any.
type Conn struct {
	conn net.Conn
	br   *bufio.Reader
	bw   *bufio.Writer
	sock kernel

	pool      *Pool
	reused    bool          // has carried a request before
	idleSince time.Time     // set while in the pool
	idle      time.Duration // before the present request
	deserted  bool          // ended without a response
	sent      int64         // bytes written before the present request
	written   atomic.Int64
	closed    atomic.Bool
	keep      bool   // may carry another request after this one
	head      []byte // scratch for response heads
	pump      *pump  // set while a request body streams
	body      Body
	abort     func()
}

// counted counts what is written, for telling whether a request reached the instance.
type counted struct{ c *Conn }

func (w counted) Write(p []byte) (int, error) {
	n, err := w.c.conn.Write(p)
	w.c.written.Add(int64(n))
	return n, err
}

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, bufferSize) }}
)

func newConn(p *Pool, nc net.Conn) *Conn {
	c := &Conn{conn: nc, pool: p, sock: kernelOf(nc)}
	c.abort = func() { c.Close() } // a connection given up
	return c
}

// begin readies the connection for a request.
func (c *Conn) begin() {
	c.br = readers.Get().(*bufio.Reader)
	c.br.Reset(c.conn)
	c.bw = writers.Get().(*bufio.Writer)
	c.bw.Reset(counted{c})
	c.sent = c.written.Load()
	c.keep = true
	c.pump = nil
}

// end gives the buffers back. A body that still streams holds on to the write buffer.
func (c *Conn) end() {
	c.br.Reset(nil)
	readers.Put(c.br)
	c.br = nil
	if c.pump == nil || c.pump.finished() {
		c.bw.Reset(nil)
		writers.Put(c.bw)
	}
	c.bw = nil
	c.pump = nil
}

// Abort returns a function that closes the connection, the same at each call.
func (c *Conn) Abort() func() { return c.abort }

// Close ends the connection; repeating it does nothing.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.conn.Close()
}

// SetDeadline bounds all reading and writing until the next call; zero means no bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Reused reports whether the connection carried a request before the present one.
func (c *Conn) Reused() bool { return c.reused }

// lost turns the end of a connection without a response into what it means for the request.
func (c *Conn) lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.deserted = true
	if c.br.Buffered() > 0 {
		return errors.Join(ErrMalformed, err)
	}
	if c.reused && c.written.Load() > c.sent && !c.arrived(err) {
		return errors.Join(ErrUnsent, err)
	}
	if c.written.Load() == c.sent {
		return errors.Join(ErrUnsent, err)
	}
	return errors.Join(ErrDied, err)
}

// arrived reports whether any byte of the present request may have been received. Only an orderly
// end that came before our bytes proves that none was: the kernel then never had them acknowledged.
// After a reset an acknowledgement may merely be missing.
func (c *Conn) arrived(err error) bool {
	orderly := errors.Is(err, io.EOF) || errors.Is(err, errPipe)
	if !orderly {
		return true
	}
	acked, ok := c.sock.acked()
	// The count may include the connection's own first sequence number.
	return !ok || acked > c.sent+1
}

// Take hands the connection over to the caller, with what was read beyond the response's head. It
// is for connections that switched to another protocol.
func (c *Conn) Take() (net.Conn, []byte) {
	ahead, _ := c.br.Peek(c.br.Buffered()) // they are buffered
	ahead = append([]byte(nil), ahead...)
	c.end()
	return c.conn, ahead
}

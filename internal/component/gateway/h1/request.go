package h1

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// continueAfter is how long a body waits for the instance to say 100 Continue before it is sent
// anyway, as a client does that meets a server which does not know of it.
const continueAfter = time.Second

// ErrBadRequest means that the request cannot be written as HTTP/1.1 safely.
var ErrBadRequest = errors.New("bad request")

// Request is what is sent to an instance.
type Request struct {
	Method string
	// URI is the request target in origin form, as the client wrote it.
	URI  string
	Host string
	// Header is sent as it is, without the fields that frame the message.
	Header http.Header
	// Whole is the body, if it is known; it can be sent again.
	Whole []byte
	// Stream is the body otherwise. Length is its length, -1 if that is not known.
	Stream io.Reader
	Length int64
	// Trailer returns the trailers once Stream has ended; Announce names them before.
	Trailer  func() http.Header
	Announce string
	// Expect has the Stream wait for the instance's 100 Continue.
	Expect bool
	// Upgrade asks to switch to a protocol.
	Upgrade string
}

// CheckTarget refuses a method or target that could be read as more than one.
func CheckTarget(method, uri string) error {
	if !httpguts.ValidHeaderFieldName(method) || uri == "" {
		return ErrBadRequest
	}
	for i := range len(uri) {
		if uri[i] <= ' ' || uri[i] == 0x7f {
			return ErrBadRequest
		}
	}
	return nil
}

// Send writes the request; a streamed body goes on being written while the response is received.
func (c *Conn) Send(r *Request) error {
	c.writeHead(r)
	if r.Stream == nil {
		if _, err := c.bw.Write(r.Whole); err != nil {
			return c.lost(err)
		}
		return c.flush()
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.pump = newPump(c, r)
	go c.pump.run()
	return nil
}

// flush sends what is buffered. An instance may answer and close before it read everything, so the
// error counts only if there is no response to read.
func (c *Conn) flush() error {
	if err := c.bw.Flush(); err != nil && !c.answered() {
		return c.lost(err)
	}
	return nil
}

// answered reports whether there are bytes to read, waiting at most a moment for the first.
func (c *Conn) answered() bool {
	_, err := c.br.Peek(1)
	return err == nil
}

// put writes text; a bufio.Writer keeps an error for Flush.
func (c *Conn) put(parts ...string) {
	for _, p := range parts {
		_, _ = c.bw.WriteString(p)
	}
}

func (c *Conn) writeHead(r *Request) {
	c.put(r.Method, " ", r.URI, " HTTP/1.1\r\nHost: ", r.Host, "\r\n")
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		for _, v := range values {
			c.put(name, ": ", v, "\r\n")
		}
	}
	if r.Stream != nil {
		c.frameStream(r)
	} else if len(r.Whole) > 0 || bodyExpected(r.Method) {
		c.putLength(int64(len(r.Whole)))
	}
	if r.Upgrade != "" {
		c.put("Connection: Upgrade\r\nUpgrade: ", r.Upgrade, "\r\n")
	}
	c.put("\r\n")
}

// frameStream tells how a streamed body ends.
func (c *Conn) frameStream(r *Request) {
	switch {
	case r.Length >= 0:
		c.putLength(r.Length)
	case r.Announce != "":
		c.put("Transfer-Encoding: chunked\r\nTrailer: ", r.Announce, "\r\n")
	default:
		c.put("Transfer-Encoding: chunked\r\n")
	}
	if r.Expect {
		c.put("Expect: 100-continue\r\n")
	}
}

func (c *Conn) putLength(n int64) {
	var digits [20]byte
	c.put("Content-Length: ")
	_, _ = c.bw.Write(strconv.AppendInt(digits[:0], n, 10))
	c.put("\r\n")
}

// bodyExpected tells the methods whose empty body is worth saying.
func bodyExpected(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// pump streams a request body.
type pump struct {
	c       *Conn
	request Request
	proceed chan struct{} // closed by the instance's 100 Continue
	stop    chan struct{} // closed when the body is no longer wanted
	once    sync.Once
	done    chan struct{}
	sentAll bool  // readable once done is closed
	source  error // the client's error, readable once done is closed
}

func newPump(c *Conn, r *Request) *pump {
	return &pump{
		c: c, request: *r,
		proceed: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

func (p *pump) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// complete reports whether all of the body was sent. A pump that just wrote its last byte is
// given the moment to say so.
func (p *pump) complete() bool { return p.finished() && p.sentAll }

// run copies until the end of the body. It uses nothing of the connection but its writer, so it may
// outlive the exchange on a connection that was closed.
func (p *pump) run() {
	defer close(p.done)
	if p.request.Expect && !p.permitted() {
		return
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	w := counted{p.c}
	left := p.request.Length
	for {
		space := (*buf)[chunkRoom : len(*buf)-2]
		n, err := p.request.Stream.Read(space)
		if n > 0 {
			if _, werr := w.Write(p.frame(*buf, n)); werr != nil {
				return // the reader of the response sees why
			}
			left -= int64(n)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && (p.request.Length < 0 || left == 0):
			p.sentAll = p.finish(w) == nil
			return
		default:
			p.source = err
			p.c.Close() // half a body must not look like a whole one
			return
		}
	}
}

// permitted waits for the instance to want the body.
func (p *pump) permitted() bool {
	timer := time.NewTimer(continueAfter)
	defer timer.Stop()
	select {
	case <-p.proceed:
	case <-timer.C:
	case <-p.stop:
		return false
	}
	return true
}

// chunkRoom is the space for a chunk's size line in front of its data.
const chunkRoom = 10

// buffers are for copying bodies: room for a chunk's frame and 32 KiB.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, chunkRoom+32<<10+2)
	return &b
}}

// frame returns the n bytes behind the room as they go on the wire, in one piece.
func (p *pump) frame(buf []byte, n int) []byte {
	if p.request.Length >= 0 {
		return buf[chunkRoom : chunkRoom+n]
	}
	var size [chunkRoom]byte
	line := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
	start := chunkRoom - len(line)
	copy(buf[start:], line)
	buf[chunkRoom+n], buf[chunkRoom+n+1] = '\r', '\n'
	return buf[start : chunkRoom+n+2]
}

// finish writes what follows a body's last byte.
func (p *pump) finish(w io.Writer) error {
	if p.request.Length >= 0 {
		return nil
	}
	end := []byte("0\r\n")
	if p.request.Trailer != nil {
		for name, values := range p.request.Trailer() {
			if !httpguts.ValidTrailerHeader(name) || !httpguts.ValidHeaderFieldName(name) {
				continue
			}
			for _, v := range values {
				end = append(append(append(append(end, name...), ": "...), v...), "\r\n"...)
			}
		}
	}
	_, err := w.Write(append(end, "\r\n"...))
	return err
}

// unblock lets a body go that waits for 100 Continue, and says whether it is wanted.
func (p *pump) unblock(wanted bool) {
	p.once.Do(func() {
		if wanted {
			close(p.proceed)
		} else {
			close(p.stop)
		}
	})
}

// SourceError is the client's error while its body was read, if that ended the exchange.
func (c *Conn) SourceError() error {
	if c.pump != nil && c.pump.finished() {
		return c.pump.source
	}
	return nil
}

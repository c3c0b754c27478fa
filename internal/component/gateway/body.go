package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	// wholeUpTo is the size up to which a body is read before the request is forwarded. It can
	// then be sent again, and a slow client does not hold a slot.
	wholeUpTo = 64 << 10
	// wholeInAll bounds the memory of all such bodies.
	wholeInAll = 64 << 20
	// bodyPatience is how long a client may take to send such a body if its revision has no timeout.
	bodyPatience = time.Minute
	smallBody    = 4 << 10
)

// body is a request's body: none, whole in memory, or a stream.
type body struct {
	whole  []byte
	stream io.Reader
	expect bool    // the client waits for 100 Continue before it sends the body
	lent   *[]byte // the pooled buffer whole is in, if it is
	held   int64   // bytes counted against wholeInAll
}

var smallBodies = sync.Pool{New: func() any {
	b := make([]byte, smallBody)
	return &b
}}

// takeBody decides how the body travels; false means the request was refused or is over.
func (c *call) takeBody() bool {
	r := c.r
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return true
	}
	n := r.ContentLength
	if n < 0 || n > wholeUpTo || c.body.expect || c.upgrade != "" {
		c.body.stream = r.Body
		return true
	}
	if c.g.bodies.Add(n) > wholeInAll {
		c.g.bodies.Add(-n)
		c.body.stream = r.Body
		return true
	}
	c.body.held = n
	if n <= smallBody {
		c.body.lent = smallBodies.Get().(*[]byte)
		c.body.whole = (*c.body.lent)[:n]
	} else {
		c.body.whole = make([]byte, n)
	}
	return c.readWhole()
}

func (c *call) readWhole() bool {
	patience := c.settings.Timeout
	if patience == 0 {
		patience = bodyPatience
	}
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(c.arrived.Add(patience)) // without it the client is trusted
	_, err := io.ReadFull(c.r.Body, c.body.whole)
	switch {
	case err == nil:
		_ = rc.SetReadDeadline(time.Time{})
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.refuse(refusal{http.StatusRequestTimeout, "SlowRequest", "the request body did not arrive in time", ""})
	case c.r.Context().Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF):
		c.refuse(refusal{http.StatusBadRequest, "BadBody", "the request body could not be read", ""})
	default:
		c.status = statusClientGone
	}
	return false
}

// release gives back the memory.
func (b *body) release(g *Gateway) {
	if b.held > 0 {
		g.bodies.Add(-b.held)
	}
	if b.lent != nil {
		smallBodies.Put(b.lent)
	}
	*b = body{}
}

// repeatable reports whether all of the body can be sent again.
func (b *body) repeatable() bool { return b.stream == nil }

// idempotent reports whether sending the request twice does no harm (RFC 9110 §9.2.2), or the
// client says it does not.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header["Idempotency-Key"] != nil || r.Header["X-Idempotency-Key"] != nil
}

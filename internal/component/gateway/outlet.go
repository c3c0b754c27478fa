package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ebb.dev/ebb/internal/component/gateway/h1"
)

// answer sends the response's head, completed by what the gateway has to say.
func (c *call) answer(status int) {
	h := c.w.Header()
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or the server would guess one
	}
	if c.entry.Cold {
		c.timing(h)
	}
	if c.settings.Service != nil && !c.fallen {
		h[headerColdStart] = []string{strconv.FormatBool(c.entry.Cold)}
	}
	c.status = status
	c.w.WriteHeader(status)
}

// flush sends what the server holds back.
func (c *call) flush() {
	if f, ok := c.w.(http.Flusher); ok {
		f.Flush()
	}
}

// trailers passes on what followed the body.
func (c *call) trailers(trailer http.Header) {
	if len(trailer) == 0 {
		return
	}
	h := c.w.Header()
	announced := strings.Join(h["Trailer"], ",")
	for name, values := range trailer {
		if !strings.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// outlet writes a body to the client.
type outlet struct {
	c       *call
	scratch *[]byte
	bounded bool // the client's connection got a deadline
}

// wait readies for a body that comes slowly: a buffer, and a bound on a client that does not read.
func (o *outlet) wait() []byte {
	if o.scratch == nil {
		o.scratch = h1.Scratch()
		if !o.c.total.IsZero() {
			rc := http.NewResponseController(o.c.w)
			// A moment longer than the instance has, so that its timeout can still be told.
			o.bounded = rc.SetWriteDeadline(o.c.total.Add(time.Second)) == nil
		}
	}
	return *o.scratch
}

// write passes data on, and sends it at once if the next will take time.
func (o *outlet) write(data []byte, flush bool) error {
	n, err := o.c.w.Write(data)
	o.c.sent += int64(n)
	if err != nil {
		if errors.Is(err, http.ErrBodyNotAllowed) {
			return nil // an instance that sends a body nobody asked for
		}
		return err
	}
	if flush {
		o.c.flush()
	}
	return nil
}

// close gives the buffer back and lifts the bound.
func (o *outlet) close() {
	if o.scratch != nil {
		h1.Unscratch(o.scratch)
	}
	if o.bounded {
		rc := http.NewResponseController(o.c.w)
		_ = rc.SetWriteDeadline(time.Time{}) // it worked before
	}
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) }

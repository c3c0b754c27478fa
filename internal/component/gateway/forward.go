package gateway

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"ebb.dev/ebb/internal/component/gateway/h1"
)

// verdict is what became of a request at an instance.
type verdict uint8

const (
	over  verdict = iota // answered, refused or the client left
	again                // it did not happen: admit it once more
)

// maxDeaths bounds how many instances one idempotent request may see die: it may be the cause.
const maxDeaths = 3

// forward sends the request to the slot's instance and gives the slot back.
func (c *call) forward() verdict {
	c.startTry()
	v := c.try()
	c.endTry(v)
	return v
}

// try is forward in the instance's protocol.
func (c *call) try() verdict {
	if c.upgrade != "" {
		return c.forwardH1()
	}
	h2 := c.settings.H2C || c.slot.Link.(*link).h2c
	if c.settings.DetectH2C {
		var err error
		if h2, err = c.slot.Link.(*link).speaksH2(c.r.Context()); err != nil {
			return c.settle(err)
		}
	}
	if h2 {
		return c.forwardH2()
	}
	return c.forwardH1()
}

// errInterrupted says that the client's leaving closed the instance's connection.
var errInterrupted = errors.New("client left")

// forwardH1 is forward for HTTP/1.1.
func (c *call) forwardH1() verdict {
	ctx := c.r.Context()
	pool := c.slot.Link.(*link).pool
	conn, err := c.connect(ctx, pool)
	if err != nil {
		return c.settle(err)
	}
	c.late = c.startLate(func(at time.Time) { _ = conn.SetDeadline(at) }) // a dead connection shows in Receive
	_ = conn.SetDeadline(c.firstDeadline())                               // a dead connection shows in Send
	stop := context.AfterFunc(ctx, conn.Abort())
	resp, err := c.exchange(conn)
	switch {
	case err == nil && resp.Status == http.StatusSwitchingProtocols:
		if stop() {
			return c.tunnel(conn)
		}
		err = errInterrupted
	case err == nil:
		err = c.respondH1(conn, resp)
	}
	if !stop() {
		err = errInterrupted
	} else if source := conn.SourceError(); err != nil && source != nil && c.status == 0 {
		err = errInterrupted
	}
	if err != nil {
		pool.Discard(conn)
		return c.settle(err)
	}
	pool.Done(conn, time.Now())
	c.release()
	return over
}

// connect gets a connection that is safe for the request.
func (c *call) connect(ctx context.Context, pool *h1.Pool) (*h1.Conn, error) {
	if !c.body.repeatable() || c.upgrade != "" {
		// What is read from the client cannot be sent twice, so this one must not cross with the
		// instance's closing of an idle connection.
		conn, err := pool.Dial(ctx)
		c.trust(err)
		return conn, err
	}
	conn, err := pool.Get(ctx, c.granted, idempotent(c.r))
	if err != nil || !conn.Reused() {
		c.trust(err)
	}
	return conn, err
}

// trust tells admission that a new connection was made.
func (c *call) trust(err error) {
	if err == nil {
		c.rev.admitter.Trust(c.slot)
	}
}

// firstDeadline is until when the response must begin.
func (c *call) firstDeadline() time.Time {
	d := c.total
	if t := c.settings.ResponseStartTimeout; t > 0 && c.late == nil {
		d = earlier(d, c.granted.Add(t))
	}
	return c.idleDeadline(d)
}

// idleDeadline is d, or sooner if no byte moves.
func (c *call) idleDeadline(d time.Time) time.Time {
	if t := c.settings.IdleTimeout; t > 0 {
		d = earlier(d, time.Now().Add(t))
	}
	return d
}

// earlier treats zero as never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// exchange sends the request and receives the response's head into the client's header.
func (c *call) exchange(conn *h1.Conn) (h1.Response, error) {
	out := h1.Request{
		Method: c.r.Method, URI: c.uri, Host: c.host, Header: c.r.Header, Whole: c.body.whole, Upgrade: c.upgrade,
	}
	if c.body.stream != nil {
		out.Stream, out.Length, out.Expect = c.source(), c.r.ContentLength, c.body.expect
		r := c.r
		out.Trailer = func() http.Header { return r.Trailer }
		out.Announce = names(r.Trailer)
		// Body and response may flow at once. Without this the server would swallow what is left
		// of the body the moment the response begins.
		_ = http.NewResponseController(c.w).EnableFullDuplex() // HTTP/2 always is
	}
	if err := conn.Send(&out); err != nil {
		return h1.Response{}, err
	}
	resp, err := conn.Receive(c.r.Method, c.w.Header(), c.interim)
	c.late.begun()
	if err != nil {
		clear(c.w.Header())
		return resp, err
	}
	if resp.Status == http.StatusSwitchingProtocols && !strings.EqualFold(c.w.Header().Get("Upgrade"), c.upgrade) {
		return resp, h1.ErrMalformed
	}
	return resp, nil
}

// names lists the announced trailers.
func names(trailer http.Header) string {
	if len(trailer) == 0 {
		return ""
	}
	list := make([]string, 0, len(trailer))
	for name := range trailer {
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}

// interim passes on a response before the real one, such as 103 Early Hints.
func (c *call) interim(status int, _ http.Header) {
	if c.r.ProtoAtLeast(1, 1) && status != http.StatusSwitchingProtocols {
		c.w.WriteHeader(status)
	}
}

// respondH1 passes the response on. A timeout ends the body cleanly, as far as its length allows.
func (c *call) respondH1(conn *h1.Conn, resp h1.Response) error {
	c.answer(resp.Status)
	body := resp.Body
	if !body.Ready() {
		c.flush()
	}
	c.relaxDeadline(conn)
	out := outlet{c: c}
	defer out.close()
	for {
		var scratch []byte
		if !body.Ready() {
			scratch = out.wait()
			if c.settings.IdleTimeout > 0 {
				_ = conn.SetDeadline(c.idleDeadline(c.total)) // a dead connection shows in Next
			}
		}
		data, err := body.Next(scratch)
		if len(data) > 0 {
			if werr := out.write(data, !body.Ready()); werr != nil {
				return errInterrupted
			}
		}
		if err != nil {
			return c.endBody(err, body)
		}
	}
}

// relaxDeadline leaves only the total timeout once the response has begun.
func (c *call) relaxDeadline(conn *h1.Conn) {
	if c.settings.ResponseStartTimeout > 0 || c.settings.IdleTimeout > 0 {
		_ = conn.SetDeadline(c.total) // a dead connection shows in Next
	}
}

// endBody finishes the response after its last byte.
func (c *call) endBody(err error, body *h1.Body) error {
	if isEOF(err) {
		c.trailers(body.Trailer)
		return nil
	}
	return err
}

// release gives the slot back after an exchange.
func (c *call) release() {
	c.rev.admitter.Release(c.slot)
	c.slot = nil
}

// settle decides what a failed exchange means, having given the slot back.
func (c *call) settle(err error) verdict {
	if errors.Is(err, h1.ErrUnreachable) {
		c.rev.admitter.Fail(c.slot)
		c.slot = nil
		return again
	}
	c.release()
	gone := errors.Is(err, errInterrupted) || c.r.Context().Err() != nil
	timeout := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case c.status != 0:
		c.breakOff(timeout, gone)
	case gone:
		c.status = statusClientGone
	case timeout:
		c.refuseTimeout()
	default:
		return c.settleUnanswered(err)
	}
	return over
}

// settleUnanswered is for an instance that failed before its response began.
func (c *call) settleUnanswered(err error) verdict {
	switch {
	case errors.Is(err, h1.ErrUnsent) && c.body.repeatable():
		return again
	case errors.Is(err, h1.ErrMalformed):
		c.g.config.Log.Warn("instance gave a malformed response", "revision", c.rev.name, "error", err)
		c.refuseBroken("MalformedResponse", "the instance's response could not be understood")
		return over
	}
	c.deaths++
	if c.body.repeatable() && idempotent(c.r) && c.deaths < maxDeaths {
		return again
	}
	c.refuseBroken("InstanceDied", "the instance ended the connection without a response")
	return over
}

// breakOff ends a response that began. After a timeout the body ends as if it were whole; in any
// other case the client must see that it is not.
func (c *call) breakOff(timeout, gone bool) {
	if timeout && !gone {
		return
	}
	// The only way net/http offers to end a response so that the client notices, in HTTP/1 and 2.
	panic(http.ErrAbortHandler) //nolint:forbidigo // net/http knows no other way
}

package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"ebb.dev/ebb/internal/component/gateway/h1"
)

// newH2 speaks HTTP/2 without TLS to the pool's instance. Connections that are idle for as long as
// a request that must not be repeated would mind are closed.
func newH2(pool *h1.Pool) *http2.Transport {
	return &http2.Transport{
		AllowHTTP:          true,
		DisableCompression: true,
		IdleConnTimeout:    time.Second,
		DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			return pool.Connect(ctx)
		},
	}
}

// forwardH2 is forward for HTTP/2.
func (c *call) forwardH2() verdict {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	defer cancel(nil)
	clock := &clock{fire: func() { cancel(os.ErrDeadlineExceeded) }}
	c.late = c.startLate(clock.set)
	clock.set(c.firstDeadline())
	defer clock.stop()
	resp, err := c.slot.Link.(*link).h2.RoundTrip(c.outgoing(ctx))
	c.late.begun()
	if err == nil {
		c.trust(nil)
		err = c.respondH2(resp, clock)
		resp.Body.Close() // read or given up
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && c.r.Context().Err() == nil {
			err = cause
		}
		return c.settle(h2Error(err))
	}
	c.release()
	return over
}

// h2Error says what a round trip's error means for the request.
func h2Error(err error) error {
	switch {
	case errors.Is(err, h1.ErrUnreachable), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errInterrupted):
		return err
	}
	return errors.Join(h1.ErrDied, err)
}

// outgoing is the request as the transport wants it.
func (c *call) outgoing(ctx context.Context) *http.Request {
	r := c.r
	out := &http.Request{
		Method:        r.Method,
		URL:           c.target(),
		Host:          c.host,
		Header:        r.Header,
		ContentLength: r.ContentLength,
		Proto:         "HTTP/2.0", ProtoMajor: 2,
	}
	switch {
	case c.body.stream != nil:
		out.Body = io.NopCloser(c.source())
		if len(r.Trailer) > 0 {
			out.Trailer = r.Trailer
		}
		_ = http.NewResponseController(c.w).EnableFullDuplex() // HTTP/2 always is
	case len(c.body.whole) > 0:
		whole := c.body.whole
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(whole)), nil }
		out.Body, _ = out.GetBody() // it cannot fail
	}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusContinue {
			return nil
		}
		header := c.w.Header()
		maps.Copy(header, h)
		c.interim(code, header)
		clear(header)
		return nil
	}}
	return out.WithContext(httptrace.WithClientTrace(ctx, trace))
}

// target keeps the client's path and query as they were written.
func (c *call) target() *url.URL {
	u := &url.URL{Scheme: "http", Host: c.slot.Address.String()}
	if c.uri == "*" {
		u.Path = "*"
		return u
	}
	u.Path, u.RawPath = c.r.URL.Path, c.r.URL.RawPath
	u.RawQuery, u.ForceQuery = c.r.URL.RawQuery, c.r.URL.ForceQuery
	return u
}

// respondH2 passes the response on.
func (c *call) respondH2(resp *http.Response, clock *clock) error {
	h := c.w.Header()
	maps.Copy(h, resp.Header)
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"} {
		delete(h, name)
	}
	if len(resp.Trailer) > 0 {
		h["Trailer"] = []string{names(resp.Trailer)}
		if c.r.ProtoMajor == 1 {
			delete(h, "Content-Length") // HTTP/1 has room for trailers only where a body says its own end
		}
	}
	c.answer(resp.StatusCode)
	if resp.ContentLength != 0 {
		c.flush()
	}
	clock.set(c.total)
	out := outlet{c: c}
	defer out.close()
	left := resp.ContentLength
	for {
		if c.settings.IdleTimeout > 0 {
			clock.set(c.idleDeadline(c.total))
		}
		scratch := out.wait()
		n, err := resp.Body.Read(scratch)
		left -= int64(n)
		if n > 0 {
			if werr := out.write(scratch[:n], left != 0 && err == nil); werr != nil {
				return errInterrupted
			}
		}
		switch {
		case err == nil:
		case isEOF(err):
			c.trailers(resp.Trailer)
			return nil
		default:
			return err
		}
	}
}

// clock calls a function at a time that can be moved.
type clock struct {
	timer *time.Timer
	fire  func()
}

// set moves the time; zero is never.
func (c *clock) set(at time.Time) {
	switch {
	case at.IsZero():
		c.stop()
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(at), c.fire)
	default:
		c.timer.Reset(time.Until(at))
	}
}

func (c *clock) stop() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// detectFor bounds how long an instance may take to say which protocol it speaks.
const detectFor = time.Second

// dialect is which protocol an instance speaks, once that was found out.
type dialect struct {
	mu    sync.Mutex // guards what follows, and lets one request alone ask
	known bool
	h2    bool
}

// speaksH2 tells whether the instance speaks HTTP/2 without TLS. The first request finds out on a
// connection of its own.
func (l *link) speaksH2(ctx context.Context) (bool, error) {
	l.dialect.mu.Lock()
	defer l.dialect.mu.Unlock()
	if l.dialect.known {
		return l.dialect.h2, nil
	}
	h2, err := detectH2(ctx, l.pool)
	if err != nil {
		return false, err
	}
	l.dialect.known, l.dialect.h2 = true, h2
	return h2, nil
}

// detectH2 opens a connection as HTTP/2 does. A server that speaks it answers with its settings; to
// any other the preface is a request it cannot make sense of.
func detectH2(ctx context.Context, pool *h1.Pool) (bool, error) {
	conn, err := pool.Connect(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	answered := greetsH2(conn)
	return answered, ctx.Err()
}

func greetsH2(conn net.Conn) bool {
	if conn.SetDeadline(time.Now().Add(detectFor)) != nil {
		return false
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return false
	}
	framer := http2.NewFramer(conn, conn)
	if framer.WriteSettings() != nil {
		return false
	}
	frame, err := framer.ReadFrame()
	_, isSettings := frame.(*http2.SettingsFrame)
	return err == nil && isSettings
}

package gateway

import (
	"io"
	"math"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/domain/traffic"
)

// headerColdStart tells clients of routes to Services whether an instance had to be waited for, as
// KEDA's interceptor does.
const headerColdStart = "X-Keda-Http-Cold-Start"

// firstFile is what a path without a name stands for.
const firstFile = "index.html"

// servicePatience is how long a request for a Service may still wait for an instance.
func (c *call) servicePatience() time.Duration {
	s, left := c.settings.Service, time.Duration(math.MaxInt64)
	if c.fallen {
		return 0 // it waited for the Service in whose place this one is
	}
	if s.ReadyTimeout > 0 {
		left = time.Until(c.arrived.Add(s.ReadyTimeout))
	}
	if s.Deadline > 0 {
		left = min(left, time.Until(c.arrived.Add(s.Deadline)))
	}
	return left
}

// fallBack turns a request that found no instance in time to the Service that stands in, if there is
// one and time for it. The request goes on to count where it came in.
func (c *call) fallBack() bool {
	s := c.settings.Service
	if s == nil || c.fallen || s.Fallback.Name == "" {
		return false
	}
	if s.Deadline > 0 && time.Since(c.arrived) >= s.Deadline {
		return false
	}
	rev := c.g.state.Load().revisions[s.Fallback]
	if rev == nil {
		return false
	}
	c.rev, c.settings, c.fallen, c.entry = rev, rev.settings.Load(), true, admit.Entry{}
	return true
}

// refuseService answers a request that no instance of a Service took in time.
func (c *call) refuseService() {
	name := c.settings.Service.Name.String()
	if c.fallen {
		c.refuse(refusal{http.StatusBadGateway, "NoInstance", "the Service " + name + ", which stands in, has no ready endpoint", ""})
		return
	}
	c.refuse(refusal{http.StatusGatewayTimeout, "NoInstance", "no endpoint of Service " + name + " became ready in time", ""})
}

// standIn answers in the place of instances that are not there, if the route has a response for that.
func (c *call) standIn() bool {
	s := c.settings.Service
	if s == nil || s.Placeholder == nil || c.g.config.Fleet.Ready(c.rev.name) > 0 {
		return false
	}
	c.g.config.Sink.Wake(c.rev.name)
	body, kind, ok := placed(s.Placeholder, c.r.URL.Path)
	if !ok {
		c.refuse(refusal{http.StatusInternalServerError, "PlaceholderMissing", "the placeholder's body is not there", ""})
		return true
	}
	h := c.w.Header()
	for name, value := range s.Placeholder.Header {
		h.Set(name, value)
	}
	if kind != "" && h.Get("Content-Type") == "" {
		h.Set("Content-Type", kind)
	}
	c.status, c.reason = s.Placeholder.Status, "Placeholder"
	c.w.WriteHeader(c.status)
	n, _ := io.WriteString(c.w, body) // the client's loss
	c.sent = int64(n)
	return true
}

// placed is a placeholder's body, and its type where that is known.
func placed(p *traffic.Placeholder, at string) (body, kind string, ok bool) {
	if p.Broken {
		return "", "", false
	}
	if p.Files == nil {
		return p.Body, "", true
	}
	name := p.File
	if name == "" {
		if name = strings.TrimPrefix(at, "/"); name == "" {
			name = firstFile
		}
	}
	body, found := p.Files[name]
	if !found {
		return "", "", p.File == ""
	}
	return body, mime.TypeByExtension(path.Ext(name)), true
}

// A lateStart is a request's body at whose end the time for the response begins.
type lateStart struct {
	io.Reader
	ended func()

	mu   sync.Mutex // guards over
	over bool       // the body has ended, or the response begun
}

// startLate has the time for a response begin when the streamed body was sent, where it is so: for
// routes to Services. set changes the deadline of the exchange.
func (c *call) startLate(set func(time.Time)) *lateStart {
	t := c.settings.ResponseStartTimeout
	if c.settings.Service == nil || c.body.stream == nil || t <= 0 {
		return nil
	}
	total := c.total
	return &lateStart{Reader: c.body.stream, ended: func() { set(earlier(total, time.Now().Add(t))) }}
}

// source is what the streamed body is read from.
func (c *call) source() io.Reader {
	if c.late != nil {
		return c.late
	}
	return c.body.stream
}

// Read implements io.Reader.
func (l *lateStart) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.over {
			l.over = true
			l.ended()
		}
	}
	return n, err
}

// begun says that the response has begun: nothing is left to wait for.
func (l *lateStart) begun() {
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
	}
}

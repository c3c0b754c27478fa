package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"ebb.dev/ebb/internal/component/gateway/admit"
)

// retrySoon is the Retry-After, in seconds, of refusals that may soon be over.
const retrySoon = "1"

// headerReason names the refusal for programs.
const headerReason = "X-Ebb-Reason"

// refusal is an answer of the gateway's own.
type refusal struct {
	status     int
	reason     string // CamelCase, for programs
	message    string // for people
	retryAfter string
}

// refuse answers in place of an instance.
func refuse(w http.ResponseWriter, f refusal) {
	h := w.Header()
	clear(h)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(headerReason, f.reason)
	if f.retryAfter != "" {
		h.Set("Retry-After", f.retryAfter)
	}
	w.WriteHeader(f.status)
	_, _ = w.Write([]byte(f.message + "\n")) // the client's loss
}

// refuse answers the call in place of an instance.
func (c *call) refuse(f refusal) {
	c.status, c.reason = f.status, f.reason
	refuse(c.w, f)
}

// refuseHost answers for a host without a route.
func (g *Gateway) refuseHost(w http.ResponseWriter, r *http.Request) {
	host := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, r.Host)
	g.metrics.unknown.Inc()
	refuse(w, refusal{http.StatusNotFound, "HostUnknown", fmt.Sprintf(
		"no service answers for host %q.\n"+
			"Its route may not be ready yet, or the name is misspelt: `ebb get services` lists the URLs.", host), ""})
}

// refuseAdmission answers a request that got no slot.
func (c *call) refuseAdmission(err error) {
	switch {
	case errors.Is(err, admit.ErrQueueFull):
		c.refuse(refusal{
			http.StatusServiceUnavailable, "QueueFull",
			"too many requests wait for revision " + c.rev.name.String(), retrySoon,
		})
	case errors.Is(err, admit.ErrTimeout):
		c.refuse(refusal{http.StatusServiceUnavailable, "NoInstance", fmt.Sprintf(
			"no instance of revision %s took the request in time.\n"+
				"`ebb describe` shows why none is ready or all are busy.", c.rev.name), retrySoon})
	case errors.Is(err, context.Canceled), c.r.Context().Err() != nil:
		c.status = statusClientGone
	default:
		c.refuse(refusal{http.StatusServiceUnavailable, "NoInstance", "the request could not be admitted", retrySoon})
	}
}

// refuseTimeout answers a request whose revision's time ran out before the first byte.
func (c *call) refuseTimeout() {
	c.refuse(refusal{http.StatusGatewayTimeout, "RequestTimeout", "request timeout", ""})
}

// refuseBroken answers a request that an instance did not answer properly.
func (c *call) refuseBroken(reason, message string) {
	c.refuse(refusal{http.StatusBadGateway, reason, message, ""})
}

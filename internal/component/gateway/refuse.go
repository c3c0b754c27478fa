package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/domain/traffic"
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
	case c.settings.Service != nil && errors.Is(err, admit.ErrTimeout):
		c.refuseService()
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
	if _, ok := g.state.Load().table.Has(r.Host, false); !ok {
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

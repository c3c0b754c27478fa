package gateway

import (
	"net/http"
	"time"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/component/gateway/requestlog"
	"ebb.dev/ebb/internal/domain/traffic"
)

// log adds a call that is over to the request log.
func (c *call) log(now time.Time) {
	l := c.g.config.RequestLog
	if !l.Wants(c.r.Header) {
		return
	}
	l.Add(&requestlog.Input{
		Request:  loggable(c.r),
		Response: &requestlog.Response{Code: c.status, Size: int(c.sent), Latency: now.Sub(c.arrived).Seconds()},
		Revision: c.rev.described(c.last),
		TraceID:  requestlog.TraceID(c.r.Header),
	})
}

// logProbe adds a probe that the gateway answered itself.
func (g *Gateway) logProbe(st *state, rule *traffic.Rule, r *http.Request) {
	if l := g.config.RequestLog; l.Wants(r.Header) {
		rev := st.revisions[rule.Pick(0).Revision]
		if rev == nil {
			return
		}
		l.Add(&requestlog.Input{
			Request: loggable(r), Response: &requestlog.Response{Code: http.StatusOK},
			Revision: rev.described(nil), TraceID: requestlog.TraceID(r.Header),
		})
	}
}

// described names the revision, and the instance with the slot if there was one.
func (r *revision) described(slot *admit.Slot) *requestlog.Revision {
	labels := r.settings.Load().Labels
	d := &requestlog.Revision{
		Name: r.name.Name, Namespace: r.name.Namespace, Service: labels.Service, Configuration: labels.Configuration,
	}
	if slot != nil {
		d.PodName, d.PodIP = slot.Pod, slot.Address.Addr().String()
	}
	return d
}

// loggable is what may be looked at after the request is over: no body, and nothing that leads to the
// connection.
func loggable(r *http.Request) *http.Request {
	return &http.Request{
		Method: r.Method, URL: r.URL, Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Header: r.Header, Body: http.NoBody, ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding,
		Close: r.Close, Host: r.Host, RemoteAddr: r.RemoteAddr, RequestURI: r.RequestURI, TLS: r.TLS,
	}
}

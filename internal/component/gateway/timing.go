package gateway

import (
	"maps"
	"net/http"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/component/gateway/requestlog"
	"ebb.dev/ebb/internal/domain/traffic"
)

// stages are the steps of a cold start in their order. Each lasts from the one before; queue is the
// whole wait, and firstByte the instance's own time for the response's head.
var stages = [...]string{"decide", "replicas", "bound", "sandbox", "started", "ready"}

// Names of the stages that the gateway sees itself.
const (
	stageQueue     = "queue"
	stageDispatch  = "dispatch"
	stageFirstByte = "firstByte"
)

// timing adds the Server-Timing field of a request that had to wait for an instance to start, and
// records its stages. It runs when the response's head has arrived.
func (c *call) timing(h http.Header) {
	now := time.Now()
	at := map[string]time.Time{}
	if c.g.config.Timeline != nil {
		maps.Copy(at, c.g.config.Timeline(c.rev.name))
	}
	maps.Copy(at, c.rev.admitter.Stamps(c.slot))
	var field []byte
	add := func(stage string, d time.Duration) {
		if len(field) > 0 {
			field = append(field, ", "...)
		}
		field = append(append(field, stage...), ";dur="...)
		field = strconv.AppendFloat(field, float64(d.Microseconds())/1000, 'f', -1, 64)
		c.g.metrics.stage(c.rev.name, stage, d)
	}
	add(stageQueue, c.granted.Sub(c.arrived))
	last := c.arrived
	for _, stage := range stages {
		t, known := at[stage]
		if !known || t.IsZero() {
			continue
		}
		// A step done before the request came took none of its time.
		add(stage, max(0, t.Sub(last)))
		if t.After(last) {
			c.addStage(stage, last, t)
			last = t
		}
	}
	add(stageDispatch, max(0, c.granted.Sub(last)))
	c.addStage(stageDispatch, last, later(last, c.granted))
	add(stageFirstByte, now.Sub(c.granted))
	h.Add("Server-Timing", string(field))
	c.g.metrics.cold(c.rev.name, now.Sub(c.arrived))
	c.rev.record.Load().Cold(c.granted.Sub(c.arrived))
	c.rev.cold.Store(&ColdStart{At: now, Took: now.Sub(c.arrived), Stages: string(field)})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// ColdStart is one request's wait for an instance to start.
type ColdStart struct {
	At   time.Time     // when the response's head had come
	Took time.Duration // since the request
	// Stages are as in the request's Server-Timing field, milliseconds.
	Stages string
}

// LastColdStart tells the latest cold start of a revision, and whether there was one.
func (g *Gateway) LastColdStart(rev types.NamespacedName) (ColdStart, bool) {
	if r := g.state.Load().revisions[rev]; r != nil {
		if last := r.cold.Load(); last != nil {
			return *last, true
		}
	}
	return ColdStart{}, false
}

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

package gateway

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/networking/pkg/http/header"

	"ebb.dev/ebb/internal/component/gateway/record"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// scope names the gateway in metrics and traces.
const scope = "ebb.dev/ebb/gateway"

// nameLabels are the labels of the gateway's own metrics of a revision.
var nameLabels = []string{"namespace", "revision"}

// coldBuckets are in seconds: cold starts take tens of milliseconds.
var coldBuckets = []float64{.001, .0025, .005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60}

// metrics are the gateway's own numbers, beside those that Knative has, too, which package record keeps.
type metrics struct {
	stages  *prometheus.HistogramVec
	coldAll *prometheus.HistogramVec
	waits   *prometheus.HistogramVec
	unknown prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ebb_gateway_cold_start_stage_seconds",
			Help:    "Time each stage of a cold start took of the request that waited for it.",
			Buckets: coldBuckets,
		}, []string{"namespace", "revision", "stage"}),
		coldAll: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ebb_gateway_cold_start_seconds",
			Help:    "Time from the arrival of a request that waited for an instance to start to its first byte.",
			Buckets: coldBuckets,
		}, nameLabels),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ebb_gateway_queue_duration_seconds",
			Help:    "Time that requests waited for a slot, of those that had to.",
			Buckets: coldBuckets,
		}, nameLabels),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebb_gateway_unknown_host_requests_total",
			Help: "Requests for a host without a route.",
		}),
	}
	if r != nil {
		r.MustRegister(m.stages, m.coldAll, m.waits, m.unknown)
	}
	return m
}

// observe counts a call that is over.
func (m *metrics) observe(c *call, now time.Time) {
	status := c.status
	if status < 100 || status > 599 {
		status = statusClientGone
	}
	if w := c.entry.Waited; w > 0 {
		m.waits.WithLabelValues(c.rev.name.Namespace, c.rev.name.Name).Observe(w.Seconds())
	}
	if probing(c.r.Header) {
		return // as Knative leaves probes out
	}
	q := record.Request{
		Method: c.r.Method, Status: status, Version: c.r.ProtoMajor, TLS: c.r.TLS != nil, Tag: c.routeTag(),
		Reason: c.reason, Took: now.Sub(c.arrived), Sent: c.sent, Received: c.r.ContentLength,
	}
	if !c.granted.IsZero() {
		q.Invoked = now.Sub(c.granted)
	}
	if !c.switched.IsZero() {
		q.Took = c.switched.Sub(c.arrived) // a tunnel's life is not a request's duration
	}
	c.rev.record.Load().Observe(&q)
}

// probing tells requests that only look whether somebody answers, by the agent kubelets have.
func probing(h http.Header) bool {
	agent := h["User-Agent"]
	return len(agent) == 1 && strings.HasPrefix(agent[0], header.KubeProbeUAPrefix)
}

// The values of kn.route.tag that are no tag.
const (
	tagDisabled  = "kn:disabled"  // the route does not look at the header
	tagDefault   = "kn:default"   // the request named no tag
	tagUndefined = "kn:undefined" // the request named a tag that the route does not have
)

// routeTag tells which tag of a route the request was for.
func (c *call) routeTag() string {
	switch {
	case c.rule.Tag != "":
		return c.rule.Tag
	case c.rule.TagHeader == nil:
		return tagDisabled
	case c.tag == "":
		return tagDefault
	case c.defaultRoute:
		return tagUndefined
	}
	return c.tag
}

func (m *metrics) stage(rev types.NamespacedName, stage string, d time.Duration) {
	m.stages.WithLabelValues(rev.Namespace, rev.Name, stage).Observe(d.Seconds())
}

func (m *metrics) cold(rev types.NamespacedName, d time.Duration) {
	m.coldAll.WithLabelValues(rev.Namespace, rev.Name).Observe(d.Seconds())
}

// forget drops the series of a revision that is gone.
func (m *metrics) forget(rev types.NamespacedName) {
	l := prometheus.Labels{"namespace": rev.Namespace, "revision": rev.Name}
	m.stages.DeletePartialMatch(l)
	m.coldAll.DeletePartialMatch(l)
	m.waits.DeletePartialMatch(l)
}

// Numbers are the groups that metrics are exported in, as in Knative.
type Numbers struct {
	// Control has what the activator tells in Knative, Requests what the side-car tells.
	Control, Requests *series.Group
}

// offer has the revisions' numbers told at each collection.
func (g *Gateway) offer(n Numbers) {
	if n.Control != nil {
		n.Control.Add(scope, func(b *series.Batch) { g.each(func(r *revision, l record.Load) { r.record.Load().TellLoad(b, l) }) })
	}
	if n.Requests != nil {
		n.Requests.Add(scope, func(b *series.Batch) { g.each(func(r *revision, l record.Load) { r.record.Load().Tell(b, l) }) })
	}
}

// each calls fn with every revision and what it carries.
func (g *Gateway) each(fn func(*revision, record.Load)) {
	g.mu.Lock()
	all := make([]*revision, 0, len(g.revisions))
	for _, r := range g.revisions {
		all = append(all, r)
	}
	g.mu.Unlock()
	for _, r := range all {
		fn(r, record.Load{
			Queued: int64(r.admitter.Queued()), InFlight: r.meter.Load().InFlight(),
			Bounded: r.settings.Load().ContainerConcurrency > 0,
		})
	}
}

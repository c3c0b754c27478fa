package gateway

import (
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
)

// Labels of the gateway's metrics.
var (
	revisionLabels = []string{"namespace", "service", "configuration", "revision"}
	nameLabels     = []string{"namespace", "revision"}
)

// Buckets in seconds: warm requests take parts of a millisecond, cold starts tens of them, and the
// longest timeout is ten minutes.
var (
	durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600}
	coldBuckets     = []float64{.001, .0025, .005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60}
)

// metrics are the gateway's numbers.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	stages   *prometheus.HistogramVec
	coldAll  *prometheus.HistogramVec
	waits    *prometheus.HistogramVec
	unknown  prometheus.Counter
}

// newMetrics registers them; queued tells the queues' lengths at each collection.
func newMetrics(r prometheus.Registerer, queued func(yield func(types.NamespacedName, int))) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_gateway_requests_total",
			Help: "Requests by revision and by the status they ended with; 499 means that the client left first.",
		}, append(slices.Clip(revisionLabels), "response_code", "response_code_class")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ebb_gateway_request_duration_seconds",
			Help:    "Time from a request's arrival to its last byte, waiting included.",
			Buckets: durationBuckets,
		}, append(slices.Clip(revisionLabels), "response_code_class")),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ebb_gateway_cold_start_stage_seconds",
			Help:    "Time each stage of a cold start took of the request that waited for it.",
			Buckets: coldBuckets,
		}, append(slices.Clip(nameLabels), "stage")),
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
		r.MustRegister(m.requests, m.duration, m.stages, m.coldAll, m.waits, m.unknown, newQueue(queued))
	}
	return m
}

// revisionMetrics are one revision's, looked up once.
type revisionMetrics struct {
	labels  []string
	classes [6]atomic.Pointer[prometheus.Observer]
	last    atomic.Pointer[statusCounter] // nearly all requests end with the same status
}

type statusCounter struct {
	status  int
	counter prometheus.Counter
}

// observe counts a call that is over.
func (m *metrics) observe(c *call, now time.Time) {
	rm := c.rev.metrics.Load()
	if rm == nil {
		l := c.settings.Labels
		rm = &revisionMetrics{labels: []string{c.rev.name.Namespace, l.Service, l.Configuration, c.rev.name.Name}}
		if !c.rev.metrics.CompareAndSwap(nil, rm) {
			rm = c.rev.metrics.Load()
		}
	}
	status := c.status
	if status < 100 || status > 599 {
		status = statusClientGone
	}
	sc := rm.last.Load()
	if sc == nil || sc.status != status {
		sc = &statusCounter{status: status, counter: m.requests.WithLabelValues(
			append(rm.labels[:4:4], strconv.Itoa(status), class(status))...)}
		rm.last.Store(sc)
	}
	sc.counter.Inc()
	if w := c.entry.Waited; w > 0 {
		m.waits.WithLabelValues(c.rev.name.Namespace, c.rev.name.Name).Observe(w.Seconds())
	}
	if status == 101 {
		return // a tunnel's life is not a request's duration
	}
	rm.class(m, status).Observe(now.Sub(c.arrived).Seconds())
}

// class returns the histogram of the status's class.
func (rm *revisionMetrics) class(m *metrics, status int) prometheus.Observer {
	slot := &rm.classes[status/100]
	o := slot.Load()
	if o == nil {
		made := m.duration.WithLabelValues(append(rm.labels[:4:4], class(status))...)
		o = &made
		slot.Store(o)
	}
	return *o
}

// class is the first digit as it is customarily written.
func class(status int) string { return strconv.Itoa(status/100) + "xx" }

func (m *metrics) stage(rev types.NamespacedName, stage string, d time.Duration) {
	m.stages.WithLabelValues(rev.Namespace, rev.Name, stage).Observe(d.Seconds())
}

func (m *metrics) cold(rev types.NamespacedName, d time.Duration) {
	m.coldAll.WithLabelValues(rev.Namespace, rev.Name).Observe(d.Seconds())
}

// forget drops the series of a revision that is gone.
func (m *metrics) forget(rev types.NamespacedName) {
	l := prometheus.Labels{"namespace": rev.Namespace, "revision": rev.Name}
	m.requests.DeletePartialMatch(l)
	m.duration.DeletePartialMatch(l)
	m.stages.DeletePartialMatch(l)
	m.coldAll.DeletePartialMatch(l)
	m.waits.DeletePartialMatch(l)
}

// queue collects the queues' lengths when asked.
type queue struct {
	desc   *prometheus.Desc
	queued func(yield func(types.NamespacedName, int))
}

func newQueue(queued func(yield func(types.NamespacedName, int))) *queue {
	return &queue{queued: queued, desc: prometheus.NewDesc("ebb_gateway_queued_requests",
		"Requests that wait for an instance.", nameLabels, nil)}
}

// Describe implements prometheus.Collector.
func (q *queue) Describe(ch chan<- *prometheus.Desc) { ch <- q.desc }

// Collect implements prometheus.Collector.
func (q *queue) Collect(ch chan<- prometheus.Metric) {
	q.queued(func(rev types.NamespacedName, n int) {
		ch <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, float64(n), rev.Namespace, rev.Name)
	})
}

package keda

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// The kinds of calls, by the names that gRPC's metrics have for them.
const (
	unary  = "unary"
	stream = "server_stream"
)

// kind is one family of gRPC's metrics.
type kind struct {
	prefix  string // up to "_started_total"
	labels  []string
	buckets []float64 // in seconds
}

// calls are the metrics of one side of gRPC, by the names that all who count gRPC use.
type calls struct {
	labels             int // those that follow gRPC's own
	started, handled   *prometheus.CounterVec
	receivals, sendals *prometheus.CounterVec
	took               *prometheus.HistogramVec
}

func newCalls(k kind) *calls {
	about := append([]string{"grpc_type", "grpc_service", "grpc_method"}, k.labels...)
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: k.prefix + name, Help: help}, labels)
	}
	return &calls{
		labels:    len(k.labels),
		started:   counter("_started_total", "Calls that were begun.", about),
		handled:   counter("_handled_total", "Calls that ended, by how.", append(slices.Clone(about), "grpc_code")),
		receivals: counter("_msg_received_total", "Messages that came.", about),
		sendals:   counter("_msg_sent_total", "Messages that were sent.", about),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: k.prefix + "_handling_seconds", Help: "How long calls took, in seconds.", Buckets: k.buckets,
		}, about),
	}
}

// call is one that is counted.
type call struct {
	kind, service, method string
	more                  []string // values of the further labels
}

// called reads the full name of a method: /package.Service/Method.
func called(kind, full string, more []string) call {
	service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return call{kind, service, method, more}
}

func (c *calls) about(of call) []string {
	return append([]string{of.kind, of.service, of.method}, of.more[:min(c.labels, len(of.more))]...)
}

func (c *calls) begin(of call) { c.started.WithLabelValues(c.about(of)...).Inc() }

func (c *calls) sent(of call) { c.sendals.WithLabelValues(c.about(of)...).Inc() }

func (c *calls) received(of call) { c.receivals.WithLabelValues(c.about(of)...).Inc() }

func (c *calls) end(of call, code codes.Code, took time.Duration) {
	c.handled.WithLabelValues(append(c.about(of), code.String())...).Inc()
	c.took.WithLabelValues(c.about(of)...).Observe(took.Seconds())
}

func (c *calls) all() collectors {
	return collectors{c.started, c.handled, c.receivals, c.sendals, c.took}
}

// forget drops the series with those labels.
func (c *calls) forget(labels prometheus.Labels) {
	for _, v := range []*prometheus.MetricVec{c.started.MetricVec, c.handled.MetricVec, c.receivals.MetricVec, c.sendals.MetricVec, c.took.MetricVec} {
		v.DeletePartialMatch(labels)
	}
}

// Describe implements prometheus.Collector.
func (c *calls) Describe(ch chan<- *prometheus.Desc) { c.all().Describe(ch) }

// Collect implements prometheus.Collector.
func (c *calls) Collect(ch chan<- prometheus.Metric) { c.all().Collect(ch) }

// collectors are several in one.
type collectors []prometheus.Collector

// Describe implements prometheus.Collector.
func (c collectors) Describe(ch chan<- *prometheus.Desc) {
	for _, one := range c {
		one.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c collectors) Collect(ch chan<- prometheus.Metric) {
	for _, one := range c {
		one.Collect(ch)
	}
}

package keda

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
)

// linger is how long what an object's triggers asked is shown after it is gone: how its last questions
// ended is to be seen by whoever scrapes once a minute or more often.
const linger = 5 * time.Minute

// Requests counts what triggers ask of their servers. A nil one counts nothing.
type Requests struct {
	fine     bool // histograms tell objects apart
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	empty    *prometheus.CounterVec
	calls    *calls

	mu   sync.Mutex // guards gone
	gone map[types.NamespacedName]*time.Timer
}

func emptyLabels() []string {
	return []string{"namespace", "scaledResource", "triggerName", "metricName", "resourceType", "ignoreNullValues"}
}

func newRequests(fine bool) *Requests {
	r := &Requests{
		fine: fine,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keda_scaler_http_requests_total",
			Help: "Total number of outbound HTTP requests issued during scaler metric collection.",
		}, []string{"namespace", "scaled_resource", "scaler", "trigger_name", "metric_name", "status_code"}),
		empty: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keda_scaler_empty_upstream_responses_total",
			Help: "Number of times a query returns an empty result",
		}, emptyLabels()),
		gone: map[types.NamespacedName]*time.Timer{},
	}
	labels, of := []string{"scaler", "status_code"}, []string{"scaler"}
	if fine {
		labels = []string{"scaler", "status_code", "namespace", "scaled_resource", "trigger_name", "metric_name"}
		of = append(of, "namespace", "scaled_resource", "trigger_name", "metric_name")
	}
	r.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "keda_scaler_http_request_duration_seconds",
		Help: "Duration in seconds of outbound HTTP requests issued during scaler metric collection.",
	}, labels)
	r.calls = newCalls(kind{prefix: "keda_grpc_client", labels: of, buckets: prometheus.DefBuckets})
	return r
}

func (r *Requests) all() collectors {
	return collectors{r.requests, r.took, r.empty, r.calls}
}

// Describe implements prometheus.Collector.
func (r *Requests) Describe(ch chan<- *prometheus.Desc) { r.all().Describe(ch) }

// Collect implements prometheus.Collector.
func (r *Requests) Collect(ch chan<- prometheus.Metric) { r.all().Collect(ch) }

// Known has an object's series stay.
func (r *Requests) Known(object types.NamespacedName) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.gone[object]; t != nil {
		t.Stop()
		delete(r.gone, object)
	}
}

// Gone has the series of an object vanish after a while.
func (r *Requests) Gone(object types.NamespacedName) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone[object] == nil {
		r.gone[object] = time.AfterFunc(linger, func() { r.forget(object) })
	}
}

func (r *Requests) forget(object types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone[object] == nil {
		return // it came again
	}
	delete(r.gone, object)
	of := prometheus.Labels{"namespace": object.Namespace, "scaled_resource": object.Name}
	r.requests.DeletePartialMatch(of)
	r.empty.DeletePartialMatch(prometheus.Labels{"namespace": object.Namespace, "scaledResource": object.Name})
	if r.fine {
		r.took.DeletePartialMatch(of)
		r.calls.forget(of)
	}
}

// An Asker is a trigger that asks.
type Asker struct {
	// Object is what it belongs to, Kind that one's: ScaledObject or ScaledJob.
	Object types.NamespacedName
	Kind   string
	// Type is the trigger's, Name what users call it.
	Type, Name string
	// Metric names what it asks for; optional.
	Metric func() string
	// Requests counts; optional.
	Requests *Requests
}

func (a *Asker) metric() string {
	if a.Metric == nil {
		return ""
	}
	return a.Metric()
}

// HTTP counts a request; without an answer it has no status.
func (a *Asker) HTTP(status int, took time.Duration) {
	r := a.Requests
	if r == nil {
		return
	}
	code, metric := "error", a.metric()
	if status != 0 {
		code = strconv.Itoa(status)
	}
	r.requests.WithLabelValues(a.Object.Namespace, a.Object.Name, a.Type, a.Name, metric, code).Inc()
	labels := []string{a.Type, code}
	if r.fine {
		labels = append(labels, a.Object.Namespace, a.Object.Name, a.Name, metric)
	}
	r.took.WithLabelValues(labels...).Observe(took.Seconds())
}

// Empty counts an answer in which there was nothing; ignored tells that it stands for 0.
func (a *Asker) Empty(ignored bool) {
	if r := a.Requests; r != nil {
		r.empty.WithLabelValues(a.Object.Namespace, a.Object.Name, a.Name, a.metric(), a.Kind, strconv.FormatBool(ignored)).Inc()
	}
}

// Calls counts what is asked by a connection, for one metric or for none in particular.
func (a *Asker) Calls(by grpc.ClientConnInterface, metric string) grpc.ClientConnInterface {
	if a.Requests == nil {
		return by
	}
	return &connection{by, a.Requests.calls, []string{a.Type, a.Object.Namespace, a.Object.Name, a.Name, metric}}
}

type connection struct {
	grpc.ClientConnInterface

	calls *calls
	more  []string
}

// Invoke implements grpc.ClientConnInterface.
func (c *connection) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	of, began := called(unary, method, c.more), time.Now()
	c.calls.begin(of)
	c.calls.sent(of)
	err := c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	if err == nil {
		c.calls.received(of)
	}
	c.calls.end(of, code(err), time.Since(began))
	return err
}

// NewStream implements grpc.ClientConnInterface.
func (c *connection) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	of, began := called(stream, method, c.more), time.Now()
	c.calls.begin(of)
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		c.calls.end(of, code(err), time.Since(began))
		return nil, err
	}
	return &messages{ClientStream: s, calls: c.calls, of: of, began: began}, nil
}

type messages struct {
	grpc.ClientStream

	calls *calls
	of    call
	began time.Time
	once  sync.Once
}

// SendMsg implements grpc.ClientStream.
func (m *messages) SendMsg(message any) error {
	m.calls.sent(m.of)
	return m.ClientStream.SendMsg(message)
}

// RecvMsg implements grpc.ClientStream.
func (m *messages) RecvMsg(message any) error {
	err := m.ClientStream.RecvMsg(message)
	if err == nil {
		m.calls.received(m.of)
		return nil
	}
	m.once.Do(func() { m.calls.end(m.of, code(err), time.Since(m.began)) })
	return err
}

func code(err error) codes.Code {
	switch {
	case errors.Is(err, io.EOF):
		return codes.OK
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Code()
	default:
		return status.Code(err)
	}
}

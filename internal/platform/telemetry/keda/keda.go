// Package keda counts what KEDA counts, by KEDA's names and labels: what was drawn of KEDA, and what
// alerts by it, goes on.
//
// KEDA is three programs that are scraped apart, and sums over their series would count twice what two of
// them showed. So there are three registries. What exists is told by whoever knows it, when a registry is
// asked; what happens is counted here.
package keda

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Options say what is told.
type Options struct {
	// Version is the release of KEDA that is spoken, Commit that of ebb's source.
	Version, Commit string
	// HighCardinality has histograms tell objects apart, as KEDA's flag
	// --enable-high-cardinality-metrics-labels has it.
	HighCardinality bool
}

// Metrics are the figures of all of KEDA's programs.
type Metrics struct {
	// Operator, Server and Webhooks are what the three programs show.
	Operator, Server, Webhooks *prometheus.Registry
	// Requests counts what triggers ask of their servers.
	Requests *Requests

	answered, asked *calls
	external        *prometheus.CounterVec
}

// New returns figures of nothing yet.
func New(o Options) *Metrics {
	m := &Metrics{
		Operator: prometheus.NewRegistry(), Server: prometheus.NewRegistry(), Webhooks: prometheus.NewRegistry(),
		Requests: newRequests(o.HighCardinality),
		answered: newCalls(kind{prefix: "keda_internal_metricsservice_grpc_server", buckets: questionBuckets()}),
		asked:    newCalls(kind{prefix: "keda_internal_metricsservice_grpc_client", buckets: questionBuckets()}),
		external: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Questions to the external metrics API for a metric, by how they ended.",
		}, []string{"verb", "group", "version", "resource", "scope", "component", "code"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "keda_build_info",
		Help: "Info metric, with static information about KEDA build like: version, git commit and Golang runtime info.",
	}, []string{"version", "git_commit", "goversion", "goos", "goarch"})
	build.WithLabelValues(o.Version, o.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH).Set(1)
	m.Operator.MustRegister(build, m.answered, m.Requests)
	m.Server.MustRegister(m.asked, m.external)
	return m
}

// questionBuckets are KEDA's for questions from its API server to its operator, in seconds.
func questionBuckets() []float64 {
	return []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120}
}

// Handler shows a registry, and beside it what all controllers of this process count, in Prometheus' form.
func Handler(shown prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{shown, metrics.Registry}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Values know the metrics of ScaledObjects.
type Values interface {
	Metric(ctx context.Context, namespace, object, metric string) ([]external_metrics.ExternalMetricValue, error)
}

// Answering counts the questions that values are asked: what is a call from one program to another in KEDA.
func (m *Metrics) Answering(values Values) Values { return questions{m, values} }

type questions struct {
	*Metrics
	values Values
}

// Metric implements Values.
func (q questions) Metric(ctx context.Context, namespace, object, metric string) ([]external_metrics.ExternalMetricValue, error) {
	began := time.Now()
	asked := call{kind: unary, service: "api.MetricsService", method: "GetMetrics"}
	for _, side := range []*calls{q.asked, q.answered} {
		side.begin(asked)
	}
	found, err := q.values.Metric(ctx, namespace, object, metric)
	code, status := codes.OK, "200"
	if err != nil {
		code, status = codes.Unknown, "500"
	}
	for _, side := range []*calls{q.asked, q.answered} {
		side.sent(asked)
		side.received(asked)
		side.end(asked, code, time.Since(began))
	}
	q.external.WithLabelValues("LIST", "external.metrics.k8s.io", "v1beta1", "externalmetrics", "namespace", "apiserver", status).Inc()
	return found, err
}

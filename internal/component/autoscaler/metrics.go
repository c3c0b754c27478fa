package autoscaler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// metrics are the autoscaler's own figures. Those of revisions are made up when they are asked for, so
// that a revision costs nothing in between.
type metrics struct {
	writes *prometheus.CounterVec
	took   prometheus.Histogram
	wakes  prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 14)
	m := &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_autoscaler_scale_writes_total",
			Help: "Calls that set a revision's number of instances, by result (ok, error).",
		}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ebb_autoscaler_scale_write_seconds", Buckets: buckets,
			Help: "Time such a call took.",
		}),
		wakes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ebb_autoscaler_wake_seconds", Buckets: buckets,
			Help: "Time from a request that waits at zero instances to the written number.",
		}),
	}
	if registerer != nil {
		registerer.MustRegister(m.writes, m.took, m.wakes)
	}
	return m
}

func (m *metrics) wrote(took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.writes.WithLabelValues(result).Inc()
	m.took.Observe(took.Seconds())
}

func (m *metrics) woke(took time.Duration) { m.wakes.Observe(took.Seconds()) }

// scope names the autoscaler in metrics.
const scope = "ebb.dev/ebb/autoscaler"

// instrument describes one of Knative's metrics of a revision.
func instrument(name, unit, description string) *series.Instrument {
	return &series.Instrument{Name: "kn.revision." + name, Unit: unit, Description: description}
}

// averages are the metrics of what a revision is scaled on.
type averages struct{ stable, burst, target *series.Instrument }

// The instruments, with Knative's names and units.
var (
	podsDesired     = instrument("pods.desired", "{item}", "Number of instances wanted.")
	podsRequested   = instrument("pods.requested", "{pod}", "Number of instances asked for.")
	podsCount       = instrument("pods.count", "{pod}", "Number of instances ready.")
	podsNotReady    = instrument("pods.not_ready.count", "{pod}", "Number of instances not ready, pending and terminating ones included.")
	podsPending     = instrument("pods.pending.count", "{pod}", "Number of instances whose containers do not run yet.")
	podsTerminating = instrument("pods.terminating.count", "{pod}", "Number of instances on their way out.")
	capacityExcess  = instrument("capacity.excess", "{concurrency}", "Capacity left beyond the target burst.")
	panicMode       = instrument("panic.mode", "", "1 while the wanted number may not shrink after a burst.")

	byMetric = map[scale.Metric]averages{
		scale.Concurrency: averagesOf("concurrency", "{concurrency}"),
		scale.RPS:         averagesOf("rps", "{request}/s"),
	}
)

func averagesOf(metric, unit string) averages {
	return averages{
		stable: instrument(metric+".stable", unit, "Average over the stable window."),
		burst:  instrument(metric+".panic", unit, "Average over the panic window."),
		target: instrument(metric+".target", unit, "Value that one instance should carry."),
	}
}

// tell gives every revision's figures.
func (a *Autoscaler) tell(b *series.Batch) {
	for _, key := range a.Revisions() {
		if s, known := a.State(key); known {
			tell(b, s.attributes(key), s, a.fleet.Counts(key))
		}
	}
}

// attributes name a revision as Knative does.
func (s *State) attributes(key types.NamespacedName) attribute.Set {
	return attribute.NewSet(
		attribute.String("k8s.namespace.name", key.Namespace), attribute.String("kn.service.name", s.Service),
		attribute.String("kn.configuration.name", s.Configuration), attribute.String("kn.revision.name", key.Name),
	)
}

func tell(b *series.Batch, attrs attribute.Set, s State, pods fleet.Counts) {
	b.Int(podsDesired, attrs, int64(max(0, s.Want)))
	b.Int(podsRequested, attrs, int64(max(0, s.Replicas)))
	b.Int(podsCount, attrs, int64(pods.Ready))
	b.Int(podsNotReady, attrs, int64(pods.NotReady))
	b.Int(podsPending, attrs, int64(pods.Pending))
	b.Int(podsTerminating, attrs, int64(pods.Terminating))
	b.Float(capacityExcess, attrs, float64(s.ExcessBurst))
	b.Int(panicMode, attrs, map[bool]int64{true: 1}[s.Panicking])
	if of, known := byMetric[s.Metric]; known {
		b.Float(of.stable, attrs, s.Stable)
		b.Float(of.burst, attrs, s.Panic)
		b.Float(of.target, attrs, s.Target)
	}
}

package autoscaler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the autoscaler's figures. Those of revisions are made up when they are asked for, so
// that a revision costs nothing in between.
type metrics struct {
	writes *prometheus.CounterVec
	took   prometheus.Histogram
	wakes  prometheus.Histogram
}

func newMetrics(a *Autoscaler, registerer prometheus.Registerer) *metrics {
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
		registerer.MustRegister(m.writes, m.took, m.wakes, newCollector(a))
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

// A gauge is one figure of every revision.
type gauge struct {
	desc  *prometheus.Desc
	value func(State) float64
}

// A collector tells every revision's figures when it is asked, by Knative's names.
type collector struct {
	of     *Autoscaler
	gauges []gauge
}

func newCollector(a *Autoscaler) *collector {
	c := &collector{of: a}
	add := func(name, help string, value func(State) float64) {
		labels := []string{"k8s_namespace_name", "kn_revision_name"}
		c.gauges = append(c.gauges, gauge{prometheus.NewDesc("kn_revision_"+name, help, labels, nil), value})
	}
	add("pods_desired", "Number of instances wanted.", func(s State) float64 { return float64(max(0, s.Want)) })
	add("pods_requested", "Number of instances asked for.", func(s State) float64 { return float64(max(0, s.Replicas)) })
	add("pods_count", "Number of instances ready.", func(s State) float64 { return float64(s.Ready) })
	add("metric_stable", "Average of the revision's metric over the stable window.", func(s State) float64 { return s.Stable })
	add("metric_panic", "Average of the revision's metric over the panic window.", func(s State) float64 { return s.Panic })
	add("metric_target", "Value of the metric one instance should carry.", func(s State) float64 { return s.Target })
	add("capacity_excess", "Capacity left beyond the target burst.", func(s State) float64 { return float64(s.ExcessBurst) })
	add("panic_mode", "1 while the wanted number may not shrink after a burst.", func(s State) float64 {
		if s.Panicking {
			return 1
		}
		return 0
	})
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		out <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, key := range c.of.Revisions() {
		s, ok := c.of.State(key)
		if !ok {
			continue
		}
		for _, g := range c.gauges {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(s), key.Namespace, key.Name)
		}
	}
}

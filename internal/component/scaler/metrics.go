package scaler

import (
	"strconv"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/platform/telemetry/keda"
)

// The engine tells its numbers when it is asked, from what it knows anyway: what is gone has no series.
var _ prometheus.Collector = (*Engine)(nil)

// ofMetric are the labels of what is told of one metric of a trigger. scaledObject is a ScaledJob's name,
// too, as in KEDA.
var ofMetric = []string{"namespace", "metric", "scaledObject", "scaler", "triggerIndex", "type"}

var (
	descValue        = desc("keda_scaler_metrics_value", "The current value for each scaler's metric that would be used by the HPA in computing the target average.", ofMetric...)
	descLatency      = desc("keda_scaler_metrics_latency_seconds", "The latency of retrieving current metric from each scaler, in seconds.", ofMetric...)
	descActive       = desc("keda_scaler_active", "Indicates whether a scaler is active (1), or not (0).", ofMetric...)
	descErrors       = desc("keda_scaler_detail_errors_total", "The total number of errors encountered for each scaler.", ofMetric...)
	descObjectErrors = desc("keda_scaled_object_errors_total", "The number of errors that have occurred for each ScaledObject.", "namespace", "scaledObject")
	descLate         = desc("keda_internal_scale_loop_latency_seconds", "Total deviation (in seconds) between the expected execution time and the actual execution time for the scaling loop.", "namespace", "type", "resource")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (*Engine) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descValue, descLatency, descActive, descErrors, descObjectErrors, descLate} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	e.mu.Lock()
	objects := make([]*object, 0, len(e.objects))
	for _, o := range e.objects {
		objects = append(objects, o)
	}
	e.mu.Unlock()
	for _, o := range objects {
		o.collect(ch)
	}
	for _, l := range e.jobs.all() {
		l.collect(ch, "scaledjob", sums)
	}
}

func (o *object) collect(ch chan<- prometheus.Metric) {
	so := o.present()
	if so == nil {
		return
	}
	o.mu.Lock()
	r := o.reckoned
	o.mu.Unlock()
	composed := so.IsUsingModifiers()
	failures := o.lane.collect(ch, "scaledobject", func(_ *watched, metric string) worth {
		value, known := r.worths[metric]
		active, judged := r.each[metric]
		return worth{value, known, active, judged && !composed}
	})
	ch <- prometheus.MustNewConstMetric(descObjectErrors, prometheus.CounterValue, float64(failures), o.key.Namespace, o.key.Name)
	if !composed || len(r.metrics) == 0 {
		return
	}
	labels := []string{o.key.Namespace, kedav1alpha1.CompositeMetricName, o.key.Name, kedav1alpha1.CompositeMetricName, "0", "scaledobject"}
	ch <- prometheus.MustNewConstMetric(descValue, prometheus.GaugeValue, r.metrics[0].Value, labels...)
	ch <- prometheus.MustNewConstMetric(descActive, prometheus.GaugeValue, one(r.active), labels...)
}

// worth is what is known of a metric: its value and whether it is active.
type worth struct {
	value  float64
	known  bool
	active bool
	judged bool
}

// sums adds the readings of a trigger's last answer up; the lane's mu is held.
func sums(w *watched, metric string) (out worth) {
	if w.last.began.IsZero() || w.last.err != nil {
		return worth{}
	}
	out.known, out.judged = true, true
	for _, r := range w.last.readings {
		if r.Metric == metric {
			out.value += r.Value.AsApproximateFloat64()
			out.active = out.active || r.Active
		}
	}
	return out
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// named is the name of a metric, and whether it is one that triggers are asked for.
func named(spec *autoscalingv2.MetricSpec) (metric string, external bool) {
	switch {
	case spec.External != nil:
		return spec.External.Metric.Name, true
	case spec.Resource != nil:
		return string(spec.Resource.Name), false
	case spec.ContainerResource != nil:
		return string(spec.ContainerResource.Name), false
	}
	return "", false
}

// collect tells of a lane's triggers, and returns how often they failed.
func (l *lane) collect(ch chan<- prometheus.Metric, kind string, of func(w *watched, metric string) worth) (failures uint64) {
	var out []prometheus.Metric
	tell := func(d *prometheus.Desc, as prometheus.ValueType, value float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, as, value, labels...))
	}
	l.mu.Lock()
	if l.round > 0 {
		tell(descLate, prometheus.GaugeValue, l.late.Seconds(), l.key.Namespace, kind, l.key.Name)
	}
	for _, w := range l.triggers {
		about := func(metric string) []string {
			return []string{l.key.Namespace, metric, l.key.Name, keda.Scaler(w.spec.Name, w.spec.Type), strconv.Itoa(w.index), kind}
		}
		told := map[string]bool{} // two series of one name would spoil all
		for i := range w.specs {
			metric, external := named(&w.specs[i])
			if told[metric] {
				continue
			}
			told[metric] = true
			if !external {
				if kind == "scaledobject" && !w.composed {
					tell(descActive, prometheus.GaugeValue, 1, about(metric)...) // the autoscaler reads it: it always is
				}
				continue
			}
			labels := about(metric)
			tell(descErrors, prometheus.CounterValue, float64(w.failures), labels...)
			if !w.last.began.IsZero() {
				tell(descLatency, prometheus.GaugeValue, w.last.took.Seconds(), labels...)
			}
			is := of(w, metric)
			if is.known {
				tell(descValue, prometheus.GaugeValue, is.value, labels...)
			}
			if is.judged {
				tell(descActive, prometheus.GaugeValue, one(is.active), labels...)
			}
		}
	}
	failures = l.failures
	l.mu.Unlock()
	for _, m := range out {
		ch <- m
	}
	return failures
}

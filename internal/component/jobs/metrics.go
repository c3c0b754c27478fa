package jobs

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
)

// metrics are the engine's figures.
type metrics struct {
	errors  *prometheus.CounterVec // KEDA's
	created *prometheus.CounterVec
}

// errorLabels are KEDA's.
func errorLabels() []string { return []string{"namespace", "scaledJob"} }

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keda_scaled_job_errors_total",
			Help: "Triggers of a ScaledJob that could not be asked.",
		}, errorLabels()),
		created: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_jobs_created_total",
			Help: "Jobs made for ScaledJobs, by result (ok, error).",
		}, []string{"result"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.errors, m.created)
	}
	return m
}

// known has an object be counted from zero.
func (m *metrics) known(namespace, name string) { m.errors.WithLabelValues(namespace, name) }

func (m *metrics) failed(namespace, name string) { m.errors.WithLabelValues(namespace, name).Inc() }

func (m *metrics) forget(key types.NamespacedName) {
	m.errors.DeleteLabelValues(key.Namespace, key.Name)
}

func (m *metrics) made(created int, err error) {
	m.created.WithLabelValues("ok").Add(float64(created))
	if err != nil {
		m.created.WithLabelValues("error").Inc()
	}
}

package delivery

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics have KEDA's names.
type metrics struct {
	emitted *prometheus.CounterVec
	waiting *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		emitted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keda_cloudeventsource_events_emitted_total",
			Help: "CloudEvents sent to a source's sink, by what became of them: emitted, failed (one attempt) or dropped (too many waited).",
		}, []string{"namespace", "cloudeventsource", "eventsink", "state"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keda_cloudeventsource_events_queued",
			Help: "CloudEvents that wait to be sent, by the namespace of the source.",
		}, []string{"namespace"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.emitted), r.Register(m.waiting))
}

func (m *metrics) queued(key Key, more int) {
	m.waiting.WithLabelValues(key.Namespace).Add(float64(more))
}

func (m *metrics) tried(key Key, sink, namespace string, err error) {
	state := "emitted"
	if err != nil {
		state = "failed"
	}
	m.emitted.WithLabelValues(namespace, key.Name, sink, state).Inc()
}

func (m *metrics) dropped(key Key, sink, namespace string) {
	m.emitted.WithLabelValues(namespace, key.Name, sink, "dropped").Inc()
}

// forget drops the series of a source that is gone.
func (m *metrics) forget(key Key) {
	labels := prometheus.Labels{"cloudeventsource": key.Name}
	if key.Namespace != "" {
		labels["namespace"] = key.Namespace
	}
	m.emitted.DeletePartialMatch(labels)
}

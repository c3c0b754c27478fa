package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the proxy does.
type metrics struct {
	connections *prometheus.CounterVec // protocol, result
	retries     prometheus.Counter
	dropped     prometheus.Counter
	active      prometheus.Gauge
	flows       prometheus.Gauge
	listeners   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_proxy_connections_total", Help: "Connections to Services (for UDP: flows), by what became of them.",
		}, []string{"protocol", "result"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebb_proxy_connect_failures_total", Help: "Attempts to reach an endpoint that failed or took too long.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebb_proxy_datagrams_dropped_total", Help: "Datagrams to Services that could not be passed on.",
		}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ebb_proxy_connections", Help: "Connections being carried now.",
		}),
		flows: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ebb_proxy_flows", Help: "UDP flows remembered now.",
		}),
		listeners: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ebb_proxy_listeners", Help: "Service ports open now.",
		}),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.connections, m.retries, m.dropped, m.active, m.flows, m.listeners} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"knative.dev/pkg/observability/metrics"
	"knative.dev/serving/pkg/observability"

	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// The ports upstream's parts and side-cars have unless an endpoint says otherwise.
const (
	controlEndpoint  = ":9090"
	requestsEndpoint = ":9091"
)

// scrapable shows a group in Prometheus' form, with names made as upstream makes them.
func scrapable(g *series.Group) (prometheus.Gatherer, error) {
	registry := prometheus.NewRegistry()
	reader, err := otelprom.New(
		otelprom.WithRegisterer(registry), otelprom.WithProducer(g), otelprom.WithoutTargetInfo(),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
	)
	if err != nil {
		return nil, fmt.Errorf("showing metrics in Prometheus' form: %w", err)
	}
	sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)) // a reader reads once it has a provider
	return registry, nil
}

// shown says which groups an offer has.
type shown struct{ control, requests bool }

// offer is a listener for scrapers.
type offer struct {
	shown  shown
	server *http.Server
}

// offer opens and closes listeners so that they are those c asks for. e.mu is held.
func (e *Exporter) offer(ctx context.Context, c *observability.Config) error {
	want := map[string]shown{}
	if c.Metrics.Protocol == metrics.ProtocolPrometheus {
		want[endpoint(c.Metrics.Endpoint, controlEndpoint)] = shown{control: true}
	}
	if c.RequestMetrics.Protocol == metrics.ProtocolPrometheus {
		at := endpoint(c.RequestMetrics.Endpoint, requestsEndpoint)
		want[at] = shown{control: want[at].control, requests: true}
	}
	for at, o := range e.offers {
		if want[at] != o.shown {
			delete(e.offers, at)
			_ = o.server.Close() // a scrape that breaks off is repeated
		}
	}
	var errs []error
	for at, s := range want {
		if e.offers[at] != nil {
			continue
		}
		if err := e.open(ctx, at, s); err != nil {
			errs = append(errs, fmt.Errorf("offering metrics at %s: %w", at, err))
		}
	}
	return errors.Join(errs...)
}

// endpoint is what was asked for, all addresses written in one way.
func endpoint(asked, otherwise string) string {
	host, port, err := net.SplitHostPort(asked)
	if err != nil {
		return otherwise
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	return net.JoinHostPort(host, port)
}

// open serves /metrics at an endpoint. e.mu is held.
func (e *Exporter) open(ctx context.Context, at string, s shown) error {
	var all prometheus.Gatherers
	if s.control {
		all = append(all, e.config.Own, e.control)
	}
	if s.requests {
		all = append(all, e.requests)
	}
	listener, err := e.config.Listen(ctx, at)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	e.offers[at] = &offer{s, server}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			e.config.Log.Error("offering metrics ended", "endpoint", at, "error", err)
		}
	}()
	return nil
}

// Package export brings metrics and traces to where config-observability says: a Prometheus listener,
// an OTLP collector, a stream, or nowhere.
//
//	config-observability ─► Apply ─► closes what changed, opens what is wanted
//	series.Group ◄── asked by ── a scraper, or an OTLP reader at its interval
//	request ─► Tracer ─► batches ─► OTLP
//
// What is not wanted costs nothing: no listener, no timer, no goroutine.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
	"knative.dev/pkg/observability/metrics"
	"knative.dev/pkg/observability/tracing"
	"knative.dev/serving/pkg/observability"

	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// lastWords is how long an exporter that is no longer wanted has to send what it holds.
const lastWords = 5 * time.Second

// Config is what an Exporter works with. All fields but Log are needed.
type Config struct {
	// Version is of what is observed.
	Version string
	// Own are the metrics that go with Control, in Prometheus' form only.
	Own prometheus.Gatherer
	// Control is exported as metrics-* say, Requests as request-metrics-* say.
	Control, Requests *series.Group
	// Dial connects to a collector, whose name may be one of the cluster's.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listen opens the listener for scrapers; no host, or one that stands for all, is the cluster's side.
	Listen func(ctx context.Context, addr string) (net.Listener, error)
	// Stream gets spans where they are wanted as text.
	Stream io.Writer
	// Log gets what an operator should know.
	Log *slog.Logger
}

// Exporter exports. Its methods may be called from many goroutines.
type Exporter struct {
	config   Config
	resource *resource.Resource
	control  prometheus.Gatherer
	requests prometheus.Gatherer
	tracer   atomic.Pointer[trace.Tracer]

	mu       sync.Mutex // guards all below; held while things are opened and closed
	pushers  [2]*pusher // of Control and Requests
	offers   map[string]*offer
	traces   *traces
	applied  observability.Config
	outgoing sync.WaitGroup // what still sends its last words
}

// New returns an Exporter that exports nothing yet.
func New(c Config) (*Exporter, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &Exporter{config: c, offers: map[string]*offer{}, applied: *observability.DefaultConfig()}
	own := resource.NewSchemaless(attribute.String("service.name", "ebb"), attribute.String("service.version", c.Version))
	var err error
	if e.resource, err = resource.Merge(resource.Default(), own); err != nil {
		return nil, fmt.Errorf("describing what is observed: %w", err)
	}
	if e.control, err = scrapable(c.Control); err != nil {
		return nil, err
	}
	if e.requests, err = scrapable(c.Requests); err != nil {
		return nil, err
	}
	return e, nil
}

// Handler shows all metrics in Prometheus' form.
func (e *Exporter) Handler() http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{e.config.Own, e.control, e.requests}, promhttp.HandlerOpts{})
}

// Tracer makes spans; nil while traces are off.
func (e *Exporter) Tracer() trace.Tracer {
	if t := e.tracer.Load(); t != nil {
		return *t
	}
	return nil
}

// Apply has metrics and traces exported as c says from now on. What c does not change is left alone;
// what cannot be opened is told in the error and the rest works.
func (e *Exporter) Apply(ctx context.Context, c *observability.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for i, want := range []metrics.Config{c.Metrics, c.RequestMetrics} {
		errs = append(errs, e.push(ctx, i, want))
	}
	errs = append(errs, e.offer(ctx, c))
	if c.Tracing != e.applied.Tracing {
		errs = append(errs, e.trace(ctx, c.Tracing))
	}
	e.applied = *c
	return errors.Join(errs...)
}

// Close ends exporting; what is held is sent if ctx allows.
func (e *Exporter) Close(ctx context.Context) error {
	err := e.Apply(ctx, observability.DefaultConfig())
	sent := make(chan struct{})
	go func() { e.outgoing.Wait(); close(sent) }()
	select {
	case <-sent:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("sending the last metrics and traces: %w", ctx.Err()))
	}
}

// retire ends something beside, giving it time to send what it holds.
func (e *Exporter) retire(ctx context.Context, what string, end func(context.Context) error) {
	ctx = context.WithoutCancel(ctx)
	e.outgoing.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, lastWords)
		defer cancel()
		if err := end(ctx); err != nil {
			e.config.Log.Warn("ending an export", "what", what, "error", err)
		}
	})
}

// trace replaces the tracer. e.mu is held.
func (e *Exporter) trace(ctx context.Context, c tracing.Config) error {
	e.tracer.Store(nil)
	if e.traces != nil {
		e.retire(ctx, "traces", e.traces.close)
		e.traces = nil
	}
	t, err := e.openTraces(ctx, c)
	if err != nil {
		return fmt.Errorf("opening traces to %s: %w", c.Endpoint, err)
	}
	if t != nil {
		e.traces = t
		e.tracer.Store(&t.tracer)
	}
	return nil
}

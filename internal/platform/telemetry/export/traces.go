package export

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"knative.dev/pkg/observability/tracing"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// traces send spans in batches.
type traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	end      func() error // of the connection
}

// openTraces begins as c says; nil if nothing would ever be sampled.
func (e *Exporter) openTraces(ctx context.Context, c tracing.Config) (*traces, error) {
	sampler := samplerOf(c)
	if sampler == nil {
		return nil, nil
	}
	exporter, end, err := e.spanExporter(ctx, c)
	if err != nil {
		return nil, err
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithResource(e.resource), sdktrace.WithSampler(sampler), sdktrace.WithBatcher(exporter))
	return &traces{provider: p, tracer: p.Tracer("ebb.dev/ebb"), end: end}, nil
}

// samplerOf decides as upstream does: the stream gets all, a rate below one follows the caller's choice
// where there is one, and a rate of zero is off whoever asks.
func samplerOf(c tracing.Config) sdktrace.Sampler {
	switch {
	case c.Protocol == tracing.ProtocolNone:
		return nil
	case c.Protocol == tracing.ProtocolStdout, c.SamplingRate >= 1:
		return sdktrace.AlwaysSample()
	case c.SamplingRate <= 0:
		return nil
	}
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SamplingRate))
}

// spanExporter speaks to the collector; end closes what it has open beyond its own end.
func (e *Exporter) spanExporter(ctx context.Context, c tracing.Config) (x sdktrace.SpanExporter, end func() error, err error) {
	if c.Protocol == tracing.ProtocolStdout {
		x, err = stdouttrace.New(stdouttrace.WithWriter(e.config.Stream))
		return x, func() error { return nil }, err
	}
	u, err := settings.Collector(c.Endpoint)
	if err != nil {
		return nil, nil, err
	}
	if c.Protocol == tracing.ProtocolHTTPProtobuf {
		client := e.client()
		x, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(target(u, "/v1/traces")), otlptracehttp.WithHTTPClient(client))
		return x, func() error { client.CloseIdleConnections(); return nil }, err
	}
	conn, err := e.connection(u)
	if err != nil {
		return nil, nil, err
	}
	x, err = otlptracegrpc.New(ctx, otlptracegrpc.WithGRPCConn(conn))
	return x, conn.Close, err
}

// close sends the spans that are held and ends.
func (t *traces) close(ctx context.Context) error {
	return errors.Join(t.provider.Shutdown(ctx), t.end())
}

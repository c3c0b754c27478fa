package export

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"knative.dev/pkg/observability/metrics"

	"ebb.dev/ebb/internal/platform/kube/settings"
)

// pusher sends one group to a collector at an interval.
type pusher struct {
	config   metrics.Config
	provider *sdkmetric.MeterProvider
	end      func() error // of the connection
}

// push has group i sent as c says. e.mu is held.
func (e *Exporter) push(ctx context.Context, i int, c metrics.Config) error {
	old := e.pushers[i]
	if old != nil && old.config == c {
		return nil
	}
	if old != nil {
		e.pushers[i] = nil
		e.retire(ctx, "metrics", old.close)
	}
	if c.Protocol != metrics.ProtocolGRPC && c.Protocol != metrics.ProtocolHTTPProtobuf {
		return nil
	}
	exporter, end, err := e.metricExporter(ctx, c)
	if err != nil {
		return fmt.Errorf("opening metrics to %s: %w", c.Endpoint, err)
	}
	group := e.config.Control
	if i == 1 {
		group = e.config.Requests
	}
	options := []sdkmetric.PeriodicReaderOption{sdkmetric.WithProducer(group)}
	if c.ExportInterval > 0 {
		options = append(options, sdkmetric.WithInterval(c.ExportInterval))
	}
	e.pushers[i] = &pusher{config: c, end: end, provider: sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(e.resource), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, options...)),
	)}
	return nil
}

// metricExporter speaks to the collector; end closes what it has open beyond its own end.
func (e *Exporter) metricExporter(ctx context.Context, c metrics.Config) (x sdkmetric.Exporter, end func() error, err error) {
	u, err := settings.Collector(c.Endpoint)
	if err != nil {
		return nil, nil, err
	}
	if c.Protocol == metrics.ProtocolHTTPProtobuf {
		client := e.client()
		x, err = otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(target(u, "/v1/metrics")), otlpmetrichttp.WithHTTPClient(client))
		return x, func() error { client.CloseIdleConnections(); return nil }, err
	}
	conn, err := e.connection(u)
	if err != nil {
		return nil, nil, err
	}
	x, err = otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithGRPCConn(conn))
	return x, conn.Close, err
}

// close sends the numbers once more and ends.
func (p *pusher) close(ctx context.Context) error {
	return errors.Join(p.provider.Shutdown(ctx), p.end())
}

package export_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"knative.dev/serving/pkg/observability"

	"ebb.dev/ebb/internal/platform/telemetry/export"
	"ebb.dev/ebb/internal/platform/telemetry/export/exporttest"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// rig is an exporter with one number in each group.
type rig struct {
	*export.Exporter

	t      *testing.T
	listen func(addr string) (net.Listener, error)
	opened map[string]string // endpoint to where it is really
	stream bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, opened: map[string]string{}}
	own := prometheus.NewRegistry()
	count := prometheus.NewCounter(prometheus.CounterOpts{Name: "ebb_things_total", Help: "Things."})
	own.MustRegister(count)
	group := func(i *series.Instrument) *series.Group {
		g := &series.Group{}
		h := series.NewHistogram(series.Seconds(1))
		h.Observe(int64(time.Second))
		g.Add("test", func(b *series.Batch) {
			attrs := attribute.NewSet(attribute.String("kn.revision.name", "hello-00001"))
			if i.Unit == "s" {
				b.Histogram(i, attrs, h)
				return
			}
			b.Float(i, attrs, 4)
		})
		return g
	}
	var err error
	r.Exporter, err = export.New(export.Config{
		Own:     own,
		Control: group(&series.Instrument{Name: "kn.revision.rps.stable", Unit: "{request}/s"}), Requests: group(&series.Instrument{Name: "kn.serving.invocation.duration", Unit: "s"}),
		Dial: (&net.Dialer{}).DialContext, Stream: &r.stream,
		Listen: func(ctx context.Context, addr string) (net.Listener, error) {
			if r.listen != nil {
				return r.listen(addr)
			}
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
			if err == nil {
				r.opened[addr] = l.Addr().String()
			}
			return l, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) apply(pairs ...string) {
	r.t.Helper()
	if err := r.Apply(r.t.Context(), config(r.t, pairs...)); err != nil {
		r.t.Fatal(err)
	}
}

func config(t *testing.T, pairs ...string) *observability.Config {
	t.Helper()
	data := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		data[pair[0]] = pair[1]
	}
	c, err := observability.NewFromMap(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scrape reads what an endpoint offers; nothing where nobody listens.
func (r *rig) scrape(endpoint string) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.opened[endpoint]+"/metrics", http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

const (
	ownLine     = "ebb_things_total 0"
	controlLine = `kn_revision_rps_stable_per_second{kn_revision_name="hello-00001",otel_scope_name="test",otel_scope_schema_url="",otel_scope_version=""} 4`
	requestLine = `kn_serving_invocation_duration_seconds_bucket{kn_revision_name="hello-00001",otel_scope_name="test",otel_scope_schema_url="",otel_scope_version="",le="1"} 1`
)

func TestHandlerShowsAll(t *testing.T) {
	r := newRig(t)
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	for _, line := range []string{ownLine, controlLine, requestLine} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %q in\n%s", line, w.Body)
		}
	}
}

func TestScrapersGetWhatIsAskedFor(t *testing.T) {
	r := newRig(t)
	check := func(endpoint string, want ...string) {
		t.Helper()
		got := r.scrape(endpoint)
		for _, line := range []string{ownLine, controlLine, requestLine} {
			if shown := strings.Contains(got, line+"\n"); shown != slices.Contains(want, line) {
				t.Errorf("at %s: shown is %v: %s", endpoint, shown, line)
			}
		}
	}
	r.apply()
	if len(r.opened) != 0 {
		t.Errorf("opened by default: %v", r.opened)
	}
	r.apply("metrics-protocol", "prometheus", "request-metrics-protocol", "prometheus")
	check(":9090", ownLine, controlLine)
	check(":9091", requestLine)
	before := r.opened[":9091"]
	r.apply("metrics-protocol", "prometheus", "request-metrics-protocol", "prometheus", "metrics-endpoint", "0.0.0.0:9091")
	check(":9090")
	check(":9091", ownLine, controlLine, requestLine)
	r.apply("request-metrics-protocol", "prometheus")
	check(":9091", requestLine)
	if r.opened[":9091"] == before {
		t.Error("the listener stayed though what it offers changed")
	}
	r.apply()
	check(":9091")
}

func TestATakenPortIsTold(t *testing.T) {
	r := newRig(t)
	taken := errors.New("address already in use")
	r.listen = func(string) (net.Listener, error) { return nil, taken }
	if err := r.Apply(t.Context(), config(t, "metrics-protocol", "prometheus")); !errors.Is(err, taken) || !strings.Contains(err.Error(), ":9090") {
		t.Errorf("Apply() = %v", err)
	}
	r.listen = nil
	r.apply("metrics-protocol", "prometheus")
	if !strings.Contains(r.scrape(":9090"), controlLine) {
		t.Error("not offered once the port is free")
	}
}

func TestMetricsReachACollector(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			collector, r := exporttest.New(t), newRig(t) // in this order: the exporter ends first
			endpoint, path := collector.GRPC, "grpc"
			if protocol == "http/protobuf" {
				endpoint, path = collector.HTTP, "/v1/metrics"
			}
			r.apply("metrics-protocol", protocol, "metrics-endpoint", endpoint, "metrics-export-interval", "20ms",
				"request-metrics-protocol", protocol, "request-metrics-endpoint", endpoint, "request-metrics-export-interval", "20ms")
			collector.Await(t, "both groups at "+path, func(m map[string]*metricspb.Metric, _ []*tracepb.Span, paths []string) bool {
				stable, invoked := m["kn.revision.rps.stable"], m["kn.serving.invocation.duration"]
				return stable.GetGauge() != nil && stable.GetUnit() == "{request}/s" && invoked.GetHistogram() != nil &&
					len(invoked.GetHistogram().GetDataPoints()) == 1 && slices.Contains(paths, path)
			})
		})
	}
}

func TestTheLastNumbersAreSent(t *testing.T) {
	collector, r := exporttest.New(t), newRig(t) // in this order: the exporter ends first
	r.apply("metrics-protocol", "http/protobuf", "metrics-endpoint", collector.HTTP+"/otlp/v1/metrics", "metrics-export-interval", "1h")
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	collector.Await(t, "the numbers at the endpoint's path", func(m map[string]*metricspb.Metric, _ []*tracepb.Span, paths []string) bool {
		return m["kn.revision.rps.stable"] != nil && slices.Contains(paths, "/otlp/v1/metrics")
	})
}

func TestTracesReachACollector(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			collector, r := exporttest.New(t), newRig(t) // in this order: the exporter ends first
			endpoint, path := collector.GRPC, "grpc"
			if protocol == "http/protobuf" {
				endpoint, path = collector.HTTP, "/v1/traces"
			}
			r.apply("tracing-protocol", protocol, "tracing-endpoint", endpoint, "tracing-sampling-rate", "1")
			_, span := r.Tracer().Start(t.Context(), "GET")
			span.End()
			r.apply() // sends what is held
			if r.Tracer() != nil {
				t.Error("still tracing")
			}
			collector.Await(t, "the span at "+path, func(_ map[string]*metricspb.Metric, spans []*tracepb.Span, paths []string) bool {
				return len(spans) == 1 && spans[0].GetName() == "GET" && slices.Contains(paths, path)
			})
		})
	}
}

func TestTracesAreOffUnlessSampled(t *testing.T) {
	cases := map[string]struct {
		pairs []string
		on    bool
	}{
		"by default":      {nil, false},
		"without a rate":  {[]string{"tracing-protocol", "grpc", "tracing-endpoint", "http://127.0.0.1:4317"}, false},
		"with a rate":     {[]string{"tracing-protocol", "grpc", "tracing-endpoint", "http://127.0.0.1:4317", "tracing-sampling-rate", "0.1"}, true},
		"onto the stream": {[]string{"tracing-protocol", "stdout"}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(c.pairs...)
			if on := r.Tracer() != nil; on != c.on {
				t.Errorf("tracing is %v, want %v", on, c.on)
			}
		})
	}
}

func TestSpansOnTheStream(t *testing.T) {
	r := newRig(t)
	r.apply("tracing-protocol", "stdout")
	_, span := r.Tracer().Start(t.Context(), "GET")
	span.End()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.stream.String(), `"Name":"GET"`) {
		t.Errorf("stream: %s", &r.stream)
	}
}

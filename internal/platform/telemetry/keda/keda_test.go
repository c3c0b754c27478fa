package keda_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/external_metrics"

	"ebb.dev/ebb/internal/platform/telemetry/keda"
)

// series are the samples of counters and the counts of histograms, by name, labels and value.
func series(t *testing.T, of prometheus.Gatherer, prefix string) map[string]float64 {
	t.Helper()
	families, err := of.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return out
}

func expect(t *testing.T, of prometheus.Gatherer, prefix string, want map[string]float64) {
	t.Helper()
	if diff := cmp.Diff(want, series(t, of, prefix)); diff != "" {
		t.Error(diff)
	}
}

var orders = types.NamespacedName{Namespace: "shop", Name: "orders"}

// asker is a trigger called t.
func asker(m *keda.Metrics) *keda.Asker {
	return &keda.Asker{
		Object: orders, Kind: "ScaledObject", Type: "prometheus", Name: "t",
		Metric: func() string { return "s0-prometheus" }, Requests: m.Requests,
	}
}

func TestTheBuildIsTold(t *testing.T) {
	m := keda.New(keda.Options{Version: "2.21.0", Commit: "abc"})
	found := series(t, m.Operator, "keda_build_info")
	for name, value := range found {
		if !strings.Contains(name, "git_commit=abc") || !strings.Contains(name, "version=2.21.0") || value != 1 {
			t.Errorf("%s is %g", name, value)
		}
	}
	if len(found) != 1 {
		t.Errorf("there are %d series", len(found))
	}
	for _, r := range []*prometheus.Registry{m.Operator, m.Server} {
		if problems, err := testutil.GatherAndLint(r, "keda_build_info"); err != nil || len(problems) > 0 {
			t.Errorf("linting: %v, %v", problems, err)
		}
	}
}

func TestRequestsAreCountedByObject(t *testing.T) {
	m := keda.New(keda.Options{})
	a := asker(m)
	a.HTTP(200, time.Second)
	a.HTTP(200, time.Second)
	a.HTTP(0, time.Second)
	a.Empty(false)
	expect(t, m.Operator, "keda_scaler", map[string]float64{
		"keda_scaler_http_requests_total{metric_name=s0-prometheus,namespace=shop,scaled_resource=orders,scaler=prometheus,status_code=200,trigger_name=t}":                        2,
		"keda_scaler_http_requests_total{metric_name=s0-prometheus,namespace=shop,scaled_resource=orders,scaler=prometheus,status_code=error,trigger_name=t}":                      1,
		"keda_scaler_http_request_duration_seconds{scaler=prometheus,status_code=200}":                                                                                             2,
		"keda_scaler_http_request_duration_seconds{scaler=prometheus,status_code=error}":                                                                                           1,
		"keda_scaler_empty_upstream_responses_total{ignoreNullValues=false,metricName=s0-prometheus,namespace=shop,resourceType=ScaledObject,scaledResource=orders,triggerName=t}": 1,
	})
}

func TestWhatAnObjectAskedVanishesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keda.New(keda.Options{HighCardinality: true})
		asker(m).HTTP(200, time.Second)
		asker(m).Empty(true)
		m.Requests.Gone(orders)
		<-time.After(4 * time.Minute)
		m.Requests.Known(orders) // it comes again
		<-time.After(10 * time.Minute)
		if n := len(series(t, m.Operator, "keda_scaler")); n != 3 {
			t.Errorf("%d series of an object that came again, want 3", n)
		}
		m.Requests.Gone(orders)
		<-time.After(5 * time.Minute)
		synctest.Wait()
		expect(t, m.Operator, "keda_scaler", map[string]float64{})
	})
}

// scaler opens a connection to a gRPC server.
func scaler(t *testing.T) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///scaler", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestCallsAreCountedByObject(t *testing.T) {
	m := keda.New(keda.Options{HighCardinality: true})
	client := healthpb.NewHealthClient(asker(m).Calls(scaler(t), "s0-x"))
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Fatal(err)
	}
	unary := "grpc_method=Check,grpc_service=grpc.health.v1.Health,grpc_type=unary,metric_name=s0-x,namespace=shop,scaled_resource=orders,scaler=prometheus,trigger_name=t}"
	watch := "grpc_method=Watch,grpc_service=grpc.health.v1.Health,grpc_type=server_stream,metric_name=s0-x,namespace=shop,scaled_resource=orders,scaler=prometheus,trigger_name=t}"
	expect(t, m.Operator, "keda_grpc_client", map[string]float64{
		"keda_grpc_client_started_total{" + unary:                    2,
		"keda_grpc_client_started_total{" + watch:                    1,
		"keda_grpc_client_handled_total{grpc_code=OK," + unary:       1,
		"keda_grpc_client_handled_total{grpc_code=NotFound," + unary: 1,
		"keda_grpc_client_handled_total{grpc_code=Canceled," + watch: 1,
		"keda_grpc_client_msg_sent_total{" + unary:                   2,
		"keda_grpc_client_msg_sent_total{" + watch:                   1,
		"keda_grpc_client_msg_received_total{" + unary:               1,
		"keda_grpc_client_msg_received_total{" + watch:               1,
		"keda_grpc_client_handling_seconds{" + unary:                 2,
		"keda_grpc_client_handling_seconds{" + watch:                 1,
	})
}

// values knows a metric called "known".
type values struct{}

func (values) Metric(_ context.Context, _, _, metric string) ([]external_metrics.ExternalMetricValue, error) {
	if metric != "known" {
		return nil, errors.New("no such metric")
	}
	return make([]external_metrics.ExternalMetricValue, 1), nil
}

func TestQuestionsForMetricsAreCountedOnBothSides(t *testing.T) {
	m := keda.New(keda.Options{})
	counted := m.Answering(values{})
	if found, err := counted.Metric(t.Context(), "shop", "orders", "known"); err != nil || len(found) != 1 {
		t.Fatalf("Metric() = %v, %v", found, err)
	}
	if _, err := counted.Metric(t.Context(), "shop", "orders", "unknown"); err == nil {
		t.Fatal("an unknown metric has a value")
	}
	about := "grpc_method=GetMetrics,grpc_service=api.MetricsService,grpc_type=unary}"
	for side, registry := range map[string]*prometheus.Registry{"server": m.Operator, "client": m.Server} {
		name := "keda_internal_metricsservice_grpc_" + side
		expect(t, registry, name, map[string]float64{
			name + "_started_total{" + about:                   2,
			name + "_handled_total{grpc_code=OK," + about:      1,
			name + "_handled_total{grpc_code=Unknown," + about: 1,
			name + "_msg_received_total{" + about:              2,
			name + "_msg_sent_total{" + about:                  2,
			name + "_handling_seconds{" + about:                2,
		})
	}
	if found := series(t, m.Server, "apiserver_request_total"); len(found) != 2 {
		t.Errorf("apiserver_request_total is %v, want a series for each way to end", found)
	}
}

func TestTriggersWithoutANameAreCalledAsKedaDoes(t *testing.T) {
	for _, c := range []struct{ name, kind, want string }{
		{"orders", "kafka", "orders"},
		{"", "kubernetes-workload", "kubernetesWorkloadScaler"},
		{"", "redis-sentinel-streams", "redisStreamsScaler"},
		{"", "something-new", "something-new"},
	} {
		if got := keda.Scaler(c.name, c.kind); got != c.want {
			t.Errorf("Scaler(%q, %q) = %q, want %q", c.name, c.kind, got, c.want)
		}
	}
}

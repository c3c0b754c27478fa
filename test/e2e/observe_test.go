package e2e

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// observability sets keys of config-observability, which is emptied when the test ends.
func observability(t *testing.T, pairs ...string) {
	t.Helper()
	data := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		data[pair[0]] = pair[1]
	}
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/data", "value": data}})
	if err != nil {
		t.Fatal(err)
	}
	shared.do(t, "kubectl", "patch", "cm", "config-observability", "-n", "knative-serving", "--type=json", "-p", string(patch))
	t.Cleanup(func() {
		_, _ = shared.command(context.Background(), "kubectl", "patch", "cm", "config-observability", "-n", "knative-serving",
			"--type=json", "-p", `[{"op":"add","path":"/data","value":{}}]`)
	})
}

// scrape reads metrics; nothing where nobody offers them.
func scrape(t *testing.T, client *http.Client, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// control asks on the control socket.
func control() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(shared.data, "control.sock"))
	}}}
}

// lines are the beginnings of metrics' lines that a service's requests and scaling make.
func lines(name string) (requests, scaling []string) {
	names := `k8s_namespace_name="default",kn_configuration_name="` + name + `",kn_revision_name="` + name + `-00001",`
	requests = []string{
		`kn_serving_invocation_duration_seconds_bucket{http_response_status_code="200",` + names,
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",` + names,
	}
	for _, metric := range []string{
		"request_queued", "request_active", "request_concurrency", "pods_desired", "pods_requested", "pods_count",
		"pods_not_ready_count", "pods_pending_count", "pods_terminating_count", "concurrency_stable", "concurrency_panic",
		"concurrency_target", "capacity_excess", "panic_mode",
	} {
		scaling = append(scaling, "kn_revision_"+metric+"{"+names)
	}
	return requests, scaling
}

// without lists the lines that a scrape lacks.
func without(scraped string, want []string) (missing []string) {
	for _, line := range want {
		if !strings.Contains(scraped, line) {
			missing = append(missing, line)
		}
	}
	return missing
}

func TestMetricsByKnativesNames(t *testing.T) {
	greeter(t, shared, "measured")
	shared.get(t, host("measured"), "/")
	requests, scaling := lines("measured")
	if missing := without(scrape(t, control(), "ebb"), append(requests, scaling...)); len(missing) > 0 {
		t.Errorf("the control socket shows no %q", missing)
	}
	address := shared.do(t, "kubectl", "get", "service/telemetry", "-n", "ebb-system", "-o", "jsonpath={.spec.clusterIP}")
	if got := scrape(t, http.DefaultClient, address+":9090"); got != "" {
		t.Error("metrics are offered without being asked for")
	}
	observability(t, "metrics-protocol", "prometheus", "request-metrics-protocol", "prometheus")
	for port, want := range map[string][]string{":9090": scaling, ":9091": requests} {
		eventually(t, "metrics in the cluster at "+port, func() (bool, string) {
			missing := without(scrape(t, http.DefaultClient, address+port), want)
			return len(missing) == 0, strings.Join(missing, " ")
		})
	}
	if out, err := shared.command(t.Context(), "kubectl", "patch", "cm", "config-observability", "-n", "knative-serving",
		"--type=merge", "-p", `{"data":{"metrics-protocol":"statsd"}}`); err == nil || !strings.Contains(out, "statsd") {
		t.Errorf("an unknown protocol is taken: %v %s", err, out)
	}
}

func TestMetricsByKedasNames(t *testing.T) {
	image := greeter(t, shared, "counted-source")
	object := `apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: counted}
spec:
  scaleTargetRef: {name: counted}
  pollingInterval: 5
  triggers:
  - type: kubernetes-workload
    name: units
    metadata: {podSelector: app=count, value: "1"}
`
	shared.apply(t, deployment("counted", "counted", image)+deployment("count", "count", image)+object)
	shared.do(t, "kubectl", "scale", "deploy", "count", "--replicas=2")
	if out, err := shared.feed(t.Context(), strings.Replace(object, "{name: counted}", "{name: second}", 1), "kubectl", "apply", "-f", "-"); err == nil {
		t.Errorf("a second object of the same target is taken: %s", out)
	}
	about := `metric="s0-workload-default",namespace="default",scaledObject="counted",scaler="units",triggerIndex="0",type="scaledobject"}`
	for name, want := range map[string][]string{
		"keda-operator": {
			"keda_build_info{", `keda_resource_registered_total{namespace="default",type="scaled_object"}`,
			`keda_trigger_registered_total{type="kubernetes-workload"}`, `keda_scaled_object_paused{namespace="default",scaledObject="counted"} 0`,
			"keda_scaler_metrics_value{" + about + " 2", "keda_scaler_active{" + about + " 1", "keda_scaler_metrics_latency_seconds{" + about,
			"keda_scaler_detail_errors_total{" + about + " 0", `keda_scaled_object_errors_total{namespace="default",scaledObject="counted"} 0`,
			`keda_internal_scale_loop_latency_seconds{namespace="default",resource="counted",type="scaledobject"}`,
			"keda_internal_metricsservice_grpc_server_handled_total{", "workqueue_adds_total{",
		},
		"keda-metrics-apiserver": {"keda_internal_metricsservice_grpc_client_handled_total{", "apiserver_request_total{", "workqueue_adds_total{"},
		"keda-admission-webhooks": {
			`keda_webhook_scaled_object_validations_total{action="create",namespace="default"}`,
			`keda_webhook_scaled_object_validation_errors_total{action="create",namespace="default",reason="other-scaled-object"}`,
		},
	} {
		address := shared.do(t, "kubectl", "get", "service", name, "-n", "keda", "-o", "jsonpath={.spec.clusterIP}") + ":8080"
		eventually(t, "metrics of "+name, func() (bool, string) {
			missing := without(scrape(t, http.DefaultClient, address), want)
			return len(missing) == 0, strings.Join(missing, " ")
		})
	}
	if missing := without(scrape(t, control(), "ebb"), []string{"keda_scaler_active{" + about}); len(missing) > 0 {
		t.Errorf("the control socket shows no %q", missing)
	}
	shared.do(t, "kubectl", "delete", "so/counted", "deploy/counted", "deploy/count")
	eventually(t, "no series of an object that is gone", func() (bool, string) {
		all := scrape(t, control(), "ebb")
		return all != "" && !strings.Contains(all, `scaledObject="counted"`), all
	})
}

// collector keeps what is sent to it by OTLP.
type collector struct {
	mu      sync.Mutex // guards all below
	metrics map[string]bool
	spans   map[string]string // id to parent
	trace   map[string]string // id to trace
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body) // what is cut off does not parse
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path == "/v1/metrics" {
		var m metricspb.ExportMetricsServiceRequest
		_ = proto.Unmarshal(data, &m) // shows in what is missing
		for _, resource := range m.GetResourceMetrics() {
			for _, scope := range resource.GetScopeMetrics() {
				for _, metric := range scope.GetMetrics() {
					c.metrics[metric.GetName()] = true
				}
			}
		}
		return
	}
	var s tracepb.ExportTraceServiceRequest
	_ = proto.Unmarshal(data, &s) // shows in what is missing
	for _, resource := range s.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[hexOf(span.GetSpanId())] = hexOf(span.GetParentSpanId())
				c.trace[hexOf(span.GetSpanId())] = hexOf(span.GetTraceId())
			}
		}
	}
}

func hexOf(id []byte) string { return hex.EncodeToString(id) }

func TestTracesAndMetricsReachACollector(t *testing.T) {
	greeter(t, shared, "traced")
	const trace, client = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	ask := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+shared.http+"/trace", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host("traced")
		req.Header.Set("Traceparent", "00-"+trace+"-"+client+"-01")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if seen := ask(); seen != "00-"+trace+"-"+client+"-01" {
		t.Errorf("without traces the application saw %q", seen)
	}
	c := &collector{metrics: map[string]bool{}, spans: map[string]string{}, trace: map[string]string{}}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	observability(t, "tracing-protocol", "http/protobuf", "tracing-endpoint", server.URL, "tracing-sampling-rate", "1",
		"request-metrics-protocol", "http/protobuf", "request-metrics-endpoint", server.URL, "request-metrics-export-interval", "500ms",
		// By the name of a Service, which only the cluster knows: the application itself is told.
		"metrics-protocol", "http/protobuf", "metrics-endpoint", "http://traced.default.svc/v1/metrics", "metrics-export-interval", "500ms")
	seen := ""
	eventually(t, "a span of ours as the application's parent", func() (bool, string) {
		seen = ask()
		return strings.HasPrefix(seen, "00-"+trace+"-") && !strings.Contains(seen, client), seen
	})
	parent := strings.Split(seen, "-")[2]
	eventually(t, "the spans from the application's parent to the client's", func() (bool, string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.trace[parent] == trace && c.spans[c.spans[parent]] == client, ""
	})
	eventually(t, "metrics of requests", func() (bool, string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.metrics["kn.serving.invocation.duration"] && c.metrics["http.server.request.duration"], ""
	})
	eventually(t, "metrics at a Service of the cluster", func() (bool, string) {
		scraped := scrape(t, control(), "ebb")
		return strings.Contains(scraped, `http_server_request_duration_seconds_count{http_request_method="POST"`), ""
	})
}

func TestRequestLog(t *testing.T) {
	greeter(t, shared, "logged")
	observability(t, "logging.enable-request-log", "true")
	type line struct {
		Request struct {
			URL    string `json:"requestUrl"`
			Status int    `json:"status"`
			Server string `json:"serverIp"`
		} `json:"httpRequest"`
		Revision struct{ Service, Name, Pod string } `json:"revision"`
	}
	eventually(t, "a structured line", func() (bool, string) {
		shared.get(t, host("logged"), `/trace?q="x"`)
		out := shared.do(t, "logs", "logged", "--requests", "--tail", "1")
		var l line
		if err := json.Unmarshal([]byte(out), &l); err != nil {
			return false, out
		}
		return l.Request.URL == `/trace?q="x"` && l.Request.Status == 200 && l.Request.Server != "" && l.Revision.Service == "logged" &&
			l.Revision.Name == "logged-00001" && strings.HasPrefix(l.Revision.Pod, "logged-00001-deployment-"), out
	})
	observability(t, "logging.enable-request-log", "true", "logging.request-log-template",
		"{{.Revision.Service}} {{.Request.Method}} {{.Request.URL.Path}} {{.Response.Code}} {{.Response.Size}}")
	eventually(t, "a line by the template", func() (bool, string) {
		shared.get(t, host("logged"), "/trace")
		out := shared.do(t, "logs", "logged", "--requests", "--tail", "1")
		return out == "logged GET /trace 200 0\n", out
	})
	observability(t)
	eventually(t, "no more lines", func() (bool, string) {
		before := shared.do(t, "logs", "logged", "--requests")
		shared.get(t, host("logged"), "/trace")
		return shared.do(t, "logs", "logged", "--requests") == before, before
	})
}

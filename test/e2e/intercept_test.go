package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// backed is a Deployment at zero behind a Service, of one name.
func backed(name, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: 0
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: %[2]q, ports: [{name: web, containerPort: 8080}], readinessProbe: {httpGet: {port: web, path: /}}}]
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: 80, targetPort: web}]
---
`, name, image)
}

// wakes has a request for a host wake a Deployment and be answered, and then waits until the
// Deployment is at zero again.
func wakes(t *testing.T, deployment, host, path string) {
	t.Helper()
	replicas := func(want string) {
		t.Helper()
		eventually(t, deployment+" at "+want, func() (bool, string) {
			got := shared.jsonpath(t, "deploy/"+deployment, "{.spec.replicas}")
			return got == want, got
		})
	}
	replicas("0")
	status, body, header, err := shared.request(t.Context(), host, path)
	if err != nil || status != http.StatusOK || header.Get("X-KEDA-HTTP-Cold-Start") != "true" {
		t.Fatalf("the first request: %d %v, cold start %q: %s", status, err, header.Get("X-KEDA-HTTP-Cold-Start"), body)
	}
	if got := shared.jsonpath(t, "deploy/"+deployment, "{.spec.replicas}"); got == "0" {
		t.Error("it is answered by nobody")
	}
	replicas("0")
}

func TestRequestsScaleADeployment(t *testing.T) {
	image := greeter(t, shared, "intercept-source")
	shared.apply(t, backed("routed", image)+`apiVersion: http.keda.sh/v1beta1
kind: InterceptorRoute
metadata: {name: routed}
spec:
  target: {service: routed, port: 80}
  rules: [{hosts: ["*.routed.example"], paths: [{value: /shop}]}]
  scalingMetric: {concurrency: {targetValue: 10}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: routed}
spec:
  scaleTargetRef: {name: routed}
  cooldownPeriod: 2
  triggers:
  - type: external-push
    metadata: {scalerAddress: "keda-add-ons-http-external-scaler.keda:9090", interceptorRoute: routed}
  - type: kubernetes-workload
    metadata: {podSelector: app=nobody, value: "1"}
`)
	shared.do(t, "kubectl", "wait", "so/routed", "interceptorroute/routed", "--for=condition=Ready", "--timeout=60s")
	wakes(t, "routed", "a.routed.example", "/shop/x")
	if status, _, _, err := shared.request(t.Context(), "a.routed.example", "/other"); err != nil || status != http.StatusNotFound {
		t.Errorf("a path that no route has: %d %v", status, err)
	}
	if got := shared.jsonpath(t, "hpa/keda-hpa-routed", "{.spec.metrics[0].external.metric.name}"); got != "s0-http_routed_concurrency" {
		t.Errorf("the metric is %q", got)
	}
}

func TestAnHTTPScaledObjectScalesADeployment(t *testing.T) {
	image := greeter(t, shared, "httpso-source")
	shared.apply(t, backed("old", image)+`apiVersion: http.keda.sh/v1alpha1
kind: HTTPScaledObject
metadata: {name: old}
spec:
  hosts: [old.example]
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: old, service: old, portName: http}
  replicas: {min: 0, max: 5}
  scaledownPeriod: 2
  scalingMetric: {requestRate: {targetValue: 10, window: 2s}}
`)
	shared.do(t, "kubectl", "wait", "httpso/old", "--for=condition=Ready", "--timeout=60s")
	shared.do(t, "kubectl", "wait", "so/old", "--for=condition=Ready", "--timeout=60s")
	wakes(t, "old", "old.example", "/")
	shared.do(t, "kubectl", "delete", "httpso/old")
	eventually(t, "its ScaledObject gone", func() (bool, string) {
		got := shared.do(t, "kubectl", "get", "so", "-o", "name")
		return !strings.Contains(got, "scaledobject.keda.sh/old"), got
	})
	if status, _, _, err := shared.request(t.Context(), "old.example", "/"); err != nil || status != http.StatusNotFound {
		t.Errorf("the host of a route that is gone: %d %v", status, err)
	}
}

func TestARouteThatCouldNotWorkIsRefused(t *testing.T) {
	out, err := shared.feed(t.Context(), `apiVersion: http.keda.sh/v1beta1
kind: InterceptorRoute
metadata: {name: bad}
spec:
  target: {service: x, port: 80}
  rules: [{hosts: ["a.*"]}]
  timeouts: {request: -1s}
  scalingMetric: {concurrency: {targetValue: 1}}
`, "kubectl", "apply", "-f", "-")
	if err == nil || !strings.Contains(out, "spec.rules[0].hosts[0]") || !strings.Contains(out, "spec.timeouts.request") {
		t.Errorf("%v: %s", err, out)
	}
}

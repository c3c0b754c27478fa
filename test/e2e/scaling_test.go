package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// annotation writes one of the autoscaler's annotations.
func annotation(name, value string) string {
	return fmt.Sprintf("autoscaling.knative.dev/%s: %q", name, value)
}

// flood keeps so many requests in flight until the test ends or stop is called.
func flood(t *testing.T, i *installation, n int, name, path string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				status, body, _, err := i.request(ctx, host(name), path)
				if ctx.Err() == nil && (err != nil || status != http.StatusOK) {
					t.Errorf("request failed: %d %v %s", status, err, body)
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// serverless is what a revision's ServerlessService and the public endpoints show.
func serverless(t *testing.T, revision string) string {
	t.Helper()
	return shared.jsonpath(t, "sks/"+revision, `{.spec.mode} {.status.conditions[?(@.type=="Ready")].status} activators={.status.conditions[?(@.type=="ActivatorEndpointsPopulated")].status}`) +
		" " + shared.jsonpath(t, "endpointslice/"+revision, `{.endpoints[*].addresses[0]}`)
}

// TestServerlessServiceFollowsTheAutoscaler looks where tools of Knative's look: at the mode, the
// endpoints and the Services of a revision that buffers from zero only.
func TestServerlessServiceFollowsTheAutoscaler(t *testing.T) {
	t.Parallel()
	image := greeter(t, shared, "modes-source")
	shared.apply(t, service("modes", image, annotation("target-burst-capacity", "0"), annotation("window", "6s")))
	awaitReady(t, shared, "modes")
	stop := flood(t, shared, 1, "modes", "/?sleep=100ms")
	gateway := strings.TrimSpace(shared.do(t, "kubectl", "get", "endpointslice/activator-service", "-n", "knative-serving", "-o", "jsonpath={.endpoints[0].addresses[0]}"))
	pod := func() string {
		return shared.jsonpath(t, "pods", `{.items[?(@.metadata.labels.serving\.knative\.dev/revision=="modes-00001")].status.podIP}`)
	}
	eventually(t, "requests said to go to the pod", func() (bool, string) {
		seen := serverless(t, "modes-00001")
		return seen == "Serve True activators=False "+pod(), seen
	})
	if seen := shared.jsonpath(t, "endpointslice", `{range .items[?(@.metadata.labels.kubernetes\.io/service-name=="modes-00001-private")]}{.endpoints[0].addresses[0]}{end}`); seen != pod() {
		t.Errorf("private endpoints %s, want the pod's %s", seen, pod())
	}
	if seen := shared.jsonpath(t, "svc/modes-00001-private", "{.spec.selector}"); !strings.Contains(seen, "revisionUID") {
		t.Errorf("private service selects %s", seen)
	}
	greeter(t, shared, "modes-caller")
	for _, url := range []string{"http://modes-00001.default/", "http://modes-00001.default.svc.cluster.local/"} {
		if body := shared.get(t, host("modes-caller"), "/?call="+url); !strings.HasPrefix(body, "200 Hello from modes-00001") {
			t.Errorf("%s from a pod: %s", url, body)
		}
	}
	stop()
	eventually(t, "requests said to be buffered at zero", func() (bool, string) {
		seen := serverless(t, "modes-00001")
		return seen == "Proxy Unknown activators=True "+gateway, seen
	})
	if body := shared.get(t, host("modes-caller"), "/?call=http://modes-00001.default/"); !strings.HasPrefix(body, "200 Hello") {
		t.Errorf("a call to the revision at zero: %s", body)
	}
	for what, want := range map[string]string{
		"metric/modes-00001 {.spec.scrapeTarget} {.status.conditions[0].status}":                                                       "modes-00001-private True",
		"img/modes-00001-cache-user-container {.spec.image}":                                                                           image,
		"kpa/modes-00001 {.status.serviceName} {.status.metricsServiceName} {.metadata.annotations.autoscaling\\.knative\\.dev/class}": "modes-00001 modes-00001-private kpa.autoscaling.knative.dev",
	} {
		object, path, _ := strings.Cut(what, " ")
		if seen := shared.jsonpath(t, object, path); !strings.HasPrefix(seen, want) {
			t.Errorf("%s: %s, want %s", what, seen, want)
		}
	}
}

// TestClassHPAScales has Kubernetes' own autoscaler decide, by CPU and by what ebb counts.
func TestClassHPAScales(t *testing.T) {
	t.Parallel()
	image := greeter(t, shared, "horizontal-source")
	class := annotation("class", "hpa.autoscaling.knative.dev")
	for name, c := range map[string]struct{ metric, target, path string }{
		"by-cpu":   {"cpu", "50", "/?burn=200ms"},
		"by-count": {"concurrency", "1", "/?sleep=200ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			manifest := service(name, image, class, annotation("metric", c.metric), annotation("target", c.target), annotation("window", "6s"), annotation("max-scale", "3")) +
				"        resources: {requests: {cpu: 30m}, limits: {cpu: 300m}}\n"
			shared.apply(t, manifest)
			awaitReady(t, shared, name)
			if seen := shared.jsonpath(t, "hpa/"+name+"-00001", "{.spec.minReplicas} {.spec.maxReplicas} {.spec.scaleTargetRef.name} {.spec.behavior.scaleDown.stabilizationWindowSeconds}"); seen != "1 3 "+name+"-00001-deployment 6" {
				t.Errorf("horizontal pod autoscaler %s", seen)
			}
			stop := flood(t, shared, 4, name, c.path)
			awaitPods(t, shared, name, 3)
			stop()
			eventually(t, "what it decided on the revision", func() (bool, string) {
				seen := shared.jsonpath(t, "rev/"+name+"-00001", `{.status.desiredReplicas} {.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Active")].status}`)
				return strings.HasSuffix(seen, "True True") && !strings.HasPrefix(seen, "0"), seen
			})
		})
	}
}

// TestInitialScaleOfNone makes a service that is ready without ever having run.
func TestInitialScaleOfNone(t *testing.T) {
	image := greeter(t, shared, "unstarted-source")
	set := func(value string) {
		_, _ = shared.command(context.WithoutCancel(t.Context()), "kubectl", "patch", "configmap", "config-autoscaler", "-n", "knative-serving", "--type=merge", "-p", `{"data":{"allow-zero-initial-scale":`+value+`}}`)
	}
	set(`"true"`)
	t.Cleanup(func() { set("null") })
	manifest := service("unstarted", image, annotation("initial-scale", "0"))
	eventually(t, "the setting in force", func() (bool, string) {
		out, err := shared.feed(t.Context(), manifest, "kubectl", "create", "--dry-run=server", "-f", "-")
		return err == nil, out
	})
	began := time.Now()
	shared.apply(t, manifest)
	awaitReady(t, shared, "unstarted")
	t.Logf("applied and ready within %s", time.Since(began))
	if seen := shared.jsonpath(t, "deploy/unstarted-00001-deployment", "{.spec.replicas}") + scaledUp(t, "unstarted"); seen != "0" {
		t.Errorf("replicas and events %q, want none", seen)
	}
	eventually(t, "the decision on the revision", func() (bool, string) { // it may be ready before the first one
		seen := shared.jsonpath(t, "rev/unstarted-00001", `{.status.actualReplicas} {.status.desiredReplicas} {.status.conditions[?(@.type=="Active")].reason}`)
		return seen == "0 0 NoTraffic", seen
	})
	shared.get(t, host("unstarted"), "/")
}

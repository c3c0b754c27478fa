package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// deployment is a Deployment without replicas whose pods have a label app.
func deployment(name, app, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: 0
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: %q}]
---
`, name, app, image)
}

func TestTriggersScaleADeployment(t *testing.T) {
	image := greeter(t, shared, "triggers-source")
	shared.apply(t, deployment("moved", "moved", image)+deployment("load", "load", image)+`apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: moved}
spec:
  scaleTargetRef: {name: moved}
  cooldownPeriod: 2
  pollingInterval: 5
  triggers:
  - type: kubernetes-workload
    metadata: {podSelector: app=load, value: "1"}
`)
	shared.do(t, "kubectl", "wait", "so/moved", "--for=condition=Ready", "--timeout=60s")
	replicas := func(want string) {
		t.Helper()
		eventually(t, want+" replicas", func() (bool, string) {
			got := shared.do(t, "kubectl", "get", "deploy", "moved", "-o", "jsonpath={.spec.replicas}")
			return strings.TrimSpace(got) == want, got
		})
	}
	replicas("0")
	shared.do(t, "kubectl", "scale", "deploy", "load", "--replicas=3")
	replicas("3")
	eventually(t, "a HorizontalPodAutoscaler that reads the metric", func() (bool, string) {
		got := shared.do(t, "kubectl", "get", "hpa", "keda-hpa-moved", "-o", "jsonpath={.status.currentMetrics[0].external.current.averageValue} {.spec.metrics[0].external.metric.name}")
		return strings.TrimSpace(got) == "1 s0-workload-default", got
	})
	if out := shared.do(t, "explain", "scaledobject/moved"); !strings.Contains(out, "s0-workload-default") || !strings.Contains(out, "what happened") {
		t.Errorf("explain prints\n%s", out)
	}
	shared.do(t, "kubectl", "scale", "deploy", "load", "--replicas=0")
	replicas("0")
	events := shared.do(t, "kubectl", "get", "events", "--field-selector", "involvedObject.name=moved", "-o", "jsonpath={.items[*].reason}")
	for _, reason := range []string{"KEDAScalersStarted", "ScaledObjectReady", "KEDAScaleTargetActivated", "KEDAScaleTargetDeactivated"} {
		if !strings.Contains(events, reason) {
			t.Errorf("no event %s among %s", reason, events)
		}
	}
}

func TestTriggersAndRequestsScaleAService(t *testing.T) {
	image := greeter(t, shared, "both-source")
	shared.apply(t, service("both", image, annotation("window", "6s"))+"---\n"+deployment("tasks", "task", image)+`apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: both}
spec:
  scaleTargetRef: {apiVersion: serving.knative.dev/v1, kind: Service, name: both}
  cooldownPeriod: 2
  pollingInterval: 5
  triggers:
  - type: kubernetes-workload
    metadata: {podSelector: app=task, value: "1"}
`)
	awaitReady(t, shared, "both")
	shared.do(t, "kubectl", "wait", "so/both", "--for=condition=Ready", "--timeout=60s")
	awaitPods(t, shared, "both", 0)
	shared.do(t, "kubectl", "scale", "deploy", "tasks", "--replicas=2")
	awaitPods(t, shared, "both", 2)
	shared.get(t, host("both"), "/")
	if out := shared.do(t, "explain", "scaledobject/both"); !strings.Contains(out, "s0-workload-default") {
		t.Errorf("explain prints\n%s", out)
	}
	if out := shared.do(t, "describe", "both"); !strings.Contains(out, "asked for by triggers of ScaledObject default/both") {
		t.Errorf("describe prints\n%s", out)
	}
	if got := shared.do(t, "kubectl", "get", "hpa", "-o", "name"); strings.Contains(got, "keda-hpa-both") {
		t.Errorf("there is the HorizontalPodAutoscaler %s", got)
	}
	shared.do(t, "kubectl", "scale", "deploy", "tasks", "--replicas=0")
	awaitPods(t, shared, "both", 0)
}

func TestAServiceSaysItsTriggersItself(t *testing.T) {
	image := greeter(t, shared, "asked-source")
	manifest := service("asked", image, annotation("window", "6s"))
	with := func(triggers string) string {
		return strings.Replace(manifest, "metadata:\n  name: asked\n", "metadata:\n  name: asked\n  annotations:\n    ebb.dev/triggers: |\n"+triggers, 1)
	}
	triggers := `      cooldownPeriod: 2
      pollingInterval: 5
      triggers:
      - type: kubernetes-workload
        metadata: {podSelector: app=ask, value: "1"}
`
	if with(triggers) == manifest {
		t.Fatalf("there is no place for an annotation in\n%s", manifest)
	}
	misspelt := strings.Replace(triggers, "podSelector", "podSelektor", 1)
	if out, err := shared.feed(t.Context(), with(misspelt), "kubectl", "apply", "-f", "-"); err == nil || !strings.Contains(out, "triggers[0].metadata.podSelektor") {
		t.Errorf("a misspelt parameter: %v %s", err, out)
	}
	shared.apply(t, with(triggers)+"---\n"+deployment("asks", "ask", image))
	awaitReady(t, shared, "asked")
	shared.do(t, "kubectl", "wait", "so/asked", "--for=condition=Ready", "--timeout=60s")
	awaitPods(t, shared, "asked", 0)
	shared.do(t, "kubectl", "scale", "deploy", "asks", "--replicas=2")
	awaitPods(t, shared, "asked", 2)
	shared.get(t, host("asked"), "/")
	if out := shared.do(t, "explain", "scaledobject/asked"); !strings.Contains(out, "s0-workload-default") {
		t.Errorf("explain prints\n%s", out)
	}
	shared.do(t, "kubectl", "annotate", "service.serving.knative.dev/asked", "ebb.dev/triggers-")
	eventually(t, "no ScaledObject without the annotation", func() (bool, string) {
		got := shared.do(t, "kubectl", "get", "so", "-o", "name")
		return !strings.Contains(got, "/asked\n"), got
	})
	awaitPods(t, shared, "asked", 0)
}

func TestTriggersMakeJobs(t *testing.T) {
	image := greeter(t, shared, "jobs-source")
	shared.apply(t, deployment("units", "unit", image)+fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: batch}
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers: [{name: main, image: %q}]
  triggers:
  - type: kubernetes-workload
    metadata: {podSelector: app=unit, value: "1"}
`, image))
	shared.do(t, "kubectl", "wait", "sj/batch", "--for=condition=Ready", "--timeout=60s")
	shared.do(t, "kubectl", "scale", "deploy", "units", "--replicas=2")
	jobs := func() string {
		return shared.do(t, "kubectl", "get", "jobs", "-l", "scaledjob.keda.sh/name=batch", "-o", "name")
	}
	eventually(t, "two jobs", func() (bool, string) {
		got := jobs()
		return strings.Count(got, "job.batch/") == 2, got
	})
	shared.do(t, "kubectl", "wait", "sj/batch", "--for=condition=Active", "--timeout=60s")
	if got := jobs(); strings.Count(got, "job.batch/") != 2 {
		t.Errorf("two units of work have the jobs %s", got)
	}
}

func TestTriggersThatCannotWork(t *testing.T) {
	object := func(trigger string) string {
		return "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: wrong}\nspec:\n  scaleTargetRef: {name: nothing}\n  triggers: [" + trigger + "]\n"
	}
	for what, tt := range map[string]struct{ trigger, refused string }{
		"a misspelt parameter": {`{type: redis, metadata: {address: "r:6379", listNam: jobs}}`, "listName"},
		"an unknown type":      {`{type: reddis, metadata: {}}`, "redis"},
	} {
		t.Run(what, func(t *testing.T) {
			out, err := shared.feed(t.Context(), object(tt.trigger), "kubectl", "apply", "-f", "-")
			if err == nil || !strings.Contains(out, tt.refused) {
				t.Errorf("applying it: %v\n%s\nwant it to be refused, naming %s", err, out, tt.refused)
			}
		})
	}
	t.Run("a type that is not built in", func(t *testing.T) {
		out, err := shared.feed(t.Context(), strings.ReplaceAll(object(`{type: azure-queue, metadata: {queueName: q, connectionFromEnv: C}}`), "nothing", "lacking"), "kubectl", "apply", "-f", "-")
		if err != nil || !strings.Contains(out, "not built in") {
			t.Fatalf("applying it: %v\n%s\nwant a warning", err, out)
		}
		defer func() { shared.do(t, "kubectl", "delete", "so/wrong") }()
		shared.apply(t, deployment("lacking", "lacking", greeter(t, shared, "lacking-source")))
		eventually(t, "the reason", func() (bool, string) {
			got := shared.do(t, "kubectl", "get", "so", "wrong", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].reason}`)
			return strings.TrimSpace(got) == "TriggerNotBuiltIn", got
		})
	})
}

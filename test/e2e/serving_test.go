package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestRevisionsOfAService follows a service's objects through changes that make revisions and such
// that do not.
func TestRevisionsOfAService(t *testing.T) {
	image := greeter(t, shared, "chain-source")
	manifest := func(name, greeting string) string {
		return fmt.Sprintf(`apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: chain, labels: {team: a}, annotations: {note: hello}}
spec:
  template:
    metadata: {%s labels: {tier: web}, annotations: {remark: kept}}
    spec: {containers: [{image: %q, env: [{name: GREETING, value: %q}]}]}
`, name, image, greeting)
	}
	shared.apply(t, manifest("", "one"))
	awaitReady(t, shared, "chain")
	for what, path := range map[string]string{
		"ksvc/chain": `{.metadata.generation} {.status.observedGeneration} {.status.latestReadyRevisionName}`,
		"rt/chain":   `{.metadata.generation} {.status.observedGeneration} {.status.traffic[0].revisionName}`,
		"cfg/chain":  `{.metadata.generation} {.status.observedGeneration} {.status.latestReadyRevisionName}`,
	} {
		if seen := shared.jsonpath(t, what, path); seen != "1 1 chain-00001" {
			t.Errorf("%s: generation, observed, revision: %s", what, seen)
		}
	}
	for what, want := range map[string]string{
		"rt/chain":                      "a hello",
		"cfg/chain":                     "a hello",
		"svc/chain":                     "a hello",
		"rev/chain-00001":               "web kept",
		"deploy/chain-00001-deployment": "web kept",
	} {
		if seen := shared.jsonpath(t, what, "{.metadata.labels.team}{.metadata.labels.tier} {.metadata.annotations.note}{.metadata.annotations.remark}"); seen != want {
			t.Errorf("%s: labels and annotations %q, want %q", what, seen, want)
		}
	}
	revisions := func(want string) {
		t.Helper()
		eventually(t, "revisions "+want, func() (bool, string) {
			seen := shared.jsonpath(t, "rev", `{range .items[?(@.metadata.labels.serving\.knative\.dev/service=="chain")]}{.metadata.name} {end}`)
			ready := shared.jsonpath(t, "ksvc/chain", `{.status.latestReadyRevisionName} {.status.observedGeneration}/{.metadata.generation}`)
			return seen == want && strings.HasPrefix(ready, want[strings.LastIndex(want, "chain"):]), seen + " " + ready
		})
	}
	shared.apply(t, manifest("", "one"))
	shared.do(t, "kubectl", "annotate", "ksvc/chain", "more=1")
	revisions("chain-00001")
	shared.apply(t, manifest("name: chain-mine,", "two"))
	revisions("chain-00001 chain-mine")
	shared.apply(t, manifest("name: chain-mine,", "two"))
	if out, err := shared.feed(t.Context(), manifest("name: chain-mine,", "three"), "kubectl", "apply", "-f", "-"); err == nil || !strings.Contains(out, "spec.template.metadata.name") {
		t.Errorf("another template under the same name: %v %s", err, out)
	}
	if out, err := shared.command(t.Context(), "kubectl", "patch", "rev/chain-00001", "--type=merge", "-p", `{"spec":{"timeoutSeconds":7}}`); err == nil || !strings.Contains(out, "mmutable") {
		t.Errorf("a revision can be changed: %v %s", err, out)
	}
	revisions("chain-00001 chain-mine")
	shared.do(t, "kubectl", "delete", "ksvc/chain")
	eventually(t, "all that belonged to the service gone", func() (bool, string) {
		out := shared.do(t, "kubectl", "get", "rt,cfg,rev,deploy,rs,svc,pods", "-o", "name")
		return !strings.Contains(out, "/chain-0") && !strings.Contains(out, "/chain-mine") && !strings.Contains(out, "/chain\n"), out
	})
	if status, _, _, err := shared.request(t.Context(), host("chain"), "/"); err != nil || status != http.StatusNotFound {
		t.Errorf("host of a deleted service: %d %v", status, err)
	}
}

func TestMistakesAreRefusedInDryRunsToo(t *testing.T) {
	const head = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: wrong}\nspec: "
	for path, spec := range map[string]string{
		"spec.template.spec.containerConcurrency":                              `{template: {spec: {containerConcurrency: -1, containers: [{image: a}]}}}`,
		"spec.template.spec.timeoutSeconds":                                    `{template: {spec: {timeoutSeconds: 9999, containers: [{image: a}]}}}`,
		"spec.template.spec.containers":                                        `{template: {spec: {}}}`,
		"spec.template.spec.containers[0].image":                               `{template: {spec: {containers: [{image: "a b"}]}}}`,
		"spec.template.spec.volumes[0].hostPath":                               `{template: {spec: {containers: [{image: a}], volumes: [{name: h, hostPath: {path: /}}]}}}`,
		"spec.template.spec.containers[0].volumeMounts[0].name":                `{template: {spec: {containers: [{image: a, volumeMounts: [{name: z, mountPath: /z, readOnly: true}]}]}}}`,
		"spec.template.metadata.annotations.autoscaling.knative.dev/min-scale": `{template: {metadata: {annotations: {autoscaling.knative.dev/min-scale: "x"}}, spec: {containers: [{image: a}]}}}`,
		"spec.template.metadata.name":                                          `{template: {metadata: {name: other-one}, spec: {containers: [{image: a}]}}}`,
		"spec.traffic":                                                         `{template: {spec: {containers: [{image: a}]}}, traffic: [{latestRevision: true, percent: 90}]}`,
		"spec.traffic[0].latestRevision":                                       `{template: {spec: {containers: [{image: a}]}}, traffic: [{latestRevision: true, revisionName: wrong-1, percent: 100}]}`,
	} {
		out, err := shared.feed(t.Context(), head+spec+"\n", "kubectl", "create", "--dry-run=server", "-f", "-")
		if err == nil || !strings.Contains(out, path) {
			t.Errorf("dry run of %s: %v, want an error at %s: %s", spec, err, path, out)
		}
	}
}

// TestSettingsActAtOnce changes the cluster's ConfigMaps under a running service.
func TestSettingsActAtOnce(t *testing.T) {
	i := shared
	greeter(t, i, "tuned")
	set := func(name, data string) {
		t.Helper()
		i.do(t, "kubectl", "patch", "configmap", name, "-n", "knative-serving", "--type=merge", "-p", `{"data":`+data+`}`)
	}
	url := func(want string) {
		t.Helper()
		eventually(t, "URL with "+want, func() (bool, string) {
			seen := i.jsonpath(t, "ksvc/tuned", "{.status.url}")
			return strings.Contains(seen, want), seen
		})
	}
	t.Cleanup(func() {
		for name, key := range map[string]string{"config-domain": "example.com", "config-network": "domain-template", "config-autoscaler": "min-scale"} {
			_, _ = i.command(context.Background(), "kubectl", "patch", "configmap", name, "-n", "knative-serving", "--type=merge", "-p", `{"data":{"`+key+`":null}}`)
		}
	})
	set("config-domain", `{"example.com":""}`)
	url("tuned.default.example.com")
	i.get(t, "tuned.default.example.com", "/")
	set("config-domain", `{"example.com":null}`)
	url(host("tuned"))
	set("config-network", `{"domain-template":"{{.Name}}--{{.Namespace}}.{{.Domain}}"}`)
	url("tuned--default.localhost")
	i.get(t, "tuned--default.localhost", "/")
	set("config-network", `{"domain-template":null}`)
	url(host("tuned"))
	set("config-autoscaler", `{"min-scale":"2"}`)
	awaitPods(t, i, "tuned", 2)
	set("config-autoscaler", `{"min-scale":null}`)
	out, err := i.command(t.Context(), "kubectl", "patch", "configmap", "config-autoscaler", "-n", "knative-serving", "--type=merge", "-p", `{"data":{"stable-window":"soon"}}`)
	if err == nil || !strings.Contains(out, "stable-window") {
		t.Errorf("a setting that means nothing is taken: %v %s", err, out)
	}
}

// TestScaleAnnotations checks what each does to the number of instances.
func TestScaleAnnotations(t *testing.T) {
	image := greeter(t, shared, "scales-source")
	const window = `autoscaling.knative.dev/window: "6s"`
	for name, annotation := range map[string]string{
		"least": `min-scale: "2"`, "initial": `initial-scale: "3"`, "activates": `activation-scale: "3"`, "lingers": `scale-down-delay: "1h"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shared.apply(t, service(name, image, window, "autoscaling.knative.dev/"+annotation))
			awaitReady(t, shared, name)
			switch name {
			case "least":
				awaitPods(t, shared, name, 2)
			case "initial":
				if seen := scaledUp(t, name); !strings.Contains(seen, "to 3") {
					t.Errorf("scaled %s, want 3 at first", seen)
				}
				awaitPods(t, shared, name, 0)
			case "activates":
				awaitPods(t, shared, name, 0)
				shared.get(t, host(name), "/")
				awaitPods(t, shared, name, 3)
			case "lingers":
				shared.get(t, host(name), "/")
				eventually(t, "the delay as the reason to stay", func() (bool, string) {
					out := shared.do(t, "describe", name)
					return strings.Contains(out, "ask for less, but not for 60m yet"), out
				})
				awaitPods(t, shared, name, 1)
			}
		})
	}
}

// scaledUp is what the events say of a first revision's scale.
func scaledUp(t *testing.T, name string) string {
	t.Helper()
	return shared.jsonpath(t, "events", `{range .items[?(@.involvedObject.name=="`+name+`-00001-deployment")]}{.message}{"\n"}{end}`)
}

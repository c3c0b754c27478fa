package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// greeting is a service with a variable, and more for its metadata: "annotations: {…}".
func greeting(name, image, word, metadata string) string {
	return fmt.Sprintf(`apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: %s, %s}
spec: {template: {spec: {containers: [{image: %q, env: [{name: GREETING, value: %q}, {name: IDLE_TIMEOUT, value: 20ms}]}]}}}
`, name, metadata, image, word)
}

// TestTrafficRollsOutGradually changes a service under load and follows its traffic step by step.
func TestTrafficRollsOutGradually(t *testing.T) {
	image := greeter(t, shared, "gradual-source")
	const slowly = `annotations: {serving.knative.dev/rollout-duration: "6s"}`
	shared.apply(t, greeting("gradual", image, "first", slowly))
	awaitReady(t, shared, "gradual")
	c := send(t, shared, host("gradual"), "/?sleep=10ms", nil)
	shared.apply(t, greeting("gradual", image, "second", slowly))
	var seen []string // what the latest revision had
	eventually(t, "all traffic at the second revision", func() (bool, string) {
		now := shared.jsonpath(t, "ksvc/gradual", `{.status.traffic[*].percent} {.status.traffic[-1:].revisionName} {range .status.conditions[?(@.type=="RoutesReady")]}{.status} {.reason}{end}`)
		fields := strings.Fields(now)
		switch {
		case len(fields) == 5 && fields[2] == "gradual-00002" && fields[4] == "RolloutInProgress":
			if !slices.Contains(seen, fields[1]) {
				seen = append(seen, fields[1])
			}
		case len(fields) == 5 && fields[2] == "gradual-00002":
			t.Errorf("while it rolls: %s", now)
		}
		return now == "100 gradual-00002 True", now
	})
	c.end(t)
	last := 0
	for _, percent := range seen {
		n, err := strconv.Atoi(percent)
		if err != nil || n <= last {
			t.Errorf("parts of the new revision: %v", seen)
		}
		last = n
	}
	if answers := fmt.Sprint(c.bodies); len(seen) < 4 || !strings.Contains(answers, "first") || !strings.Contains(answers, "second") {
		t.Errorf("parts of the new revision: %v; answers: %v", seen, c.bodies)
	}
	if state := shared.jsonpath(t, "king/gradual", `{.metadata.annotations.networking\.internal\.knative\.dev/rollout} {.status.conditions[?(@.type=="Ready")].status}`); strings.Contains(state, "gradual-00001") || !strings.HasSuffix(state, "True") {
		t.Errorf("in the end the ingress says %s", state)
	}
}

// TestAnotherGatewaysRoute gives a route to a gateway that is not there, and takes it back.
func TestAnotherGatewaysRoute(t *testing.T) {
	greeter(t, shared, "abroad")
	shared.get(t, host("abroad"), "/")
	shared.do(t, "kubectl", "annotate", "ksvc/abroad", "networking.knative.dev/ingress-class=other.ingress.networking.knative.dev")
	eventually(t, "a word about the class", func() (bool, string) {
		seen := shared.jsonpath(t, "ksvc/abroad", `{range .status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`)
		status, _, _, err := shared.request(t.Context(), host("abroad"), "/")
		return err == nil && status == 404 && strings.HasPrefix(seen, "Unknown IngressNotConfigured") && strings.Contains(seen, "other.ingress"), seen
	})
	shared.do(t, "kubectl", "annotate", "ksvc/abroad", "networking.knative.dev/ingress-class-")
	awaitReady(t, shared, "abroad")
	shared.get(t, host("abroad"), "/")
}

// TestOldRevisionsAreCollected keeps one revision without traffic, then none but those that are to stay.
func TestOldRevisionsAreCollected(t *testing.T) {
	image := greeter(t, shared, "tidy-source")
	set := func(least, most string) {
		t.Helper()
		shared.do(t, "kubectl", "patch", "configmap", "config-gc", "-n", "knative-serving", "--type=merge", "-p",
			fmt.Sprintf(`{"data":{"retain-since-create-time":"disabled","retain-since-last-active-time":"disabled","min-non-active-revisions":%s,"max-non-active-revisions":%s}}`, least, most))
	}
	t.Cleanup(func() {
		_, _ = shared.command(context.Background(), "kubectl", "patch", "configmap", "config-gc", "-n", "knative-serving", "--type=merge", "-p",
			`{"data":{"retain-since-create-time":null,"retain-since-last-active-time":null,"min-non-active-revisions":null,"max-non-active-revisions":null}}`)
	})
	left := func(want string) {
		t.Helper()
		eventually(t, "revisions "+want, func() (bool, string) {
			seen := shared.jsonpath(t, "rev", `{range .items[?(@.metadata.labels.serving\.knative\.dev/service=="tidy")]}{.metadata.name} {end}`)
			return seen == want, seen
		})
	}
	set(`"1"`, `"1"`)
	for n, word := range []string{"one", "two", "three", "four"} {
		shared.apply(t, greeting("tidy", image, word, "labels: {team: a}"))
		eventually(t, word+" serves", func() (bool, string) {
			seen := shared.jsonpath(t, "ksvc/tidy", "{.status.traffic[*].revisionName}")
			return seen == fmt.Sprintf("tidy-%05d", n+1), seen
		})
		if n == 0 {
			shared.do(t, "kubectl", "annotate", "rev/tidy-00001", "serving.knative.dev/no-gc=true")
		}
	}
	left("tidy-00001 tidy-00003 tidy-00004")
	set(`"0"`, `"0"`)
	left("tidy-00001 tidy-00004")
	if got := shared.get(t, host("tidy"), "/"); !strings.Contains(got, "four") {
		t.Errorf("the service says %q", got)
	}
}

package e2e

import (
	"strings"
	"testing"
)

func TestBadManifestsAreRefusedWithTheFieldsPath(t *testing.T) {
	good := service("refused", "example.com/app")
	for name, c := range map[string]struct{ manifest, want string }{
		"unknown annotation value":  {service("refused", "example.com/app", `autoscaling.knative.dev/min-scale: "many"`), "min-scale"},
		"two ports":                 {good + "        ports:\n        - containerPort: 1\n        - containerPort: 2\n", "ports"},
		"traffic that is not 100%":  {good + "  traffic:\n  - latestRevision: true\n    percent: 50\n", "100"},
		"a negative concurrency":    {strings.Replace(good, "    spec:\n", "    spec:\n      containerConcurrency: -1\n", 1), "containerConcurrency"},
		"a host path volume":        {good + "      volumes:\n      - name: v\n        hostPath:\n          path: /etc\n", "volumes"},
		"an image that is no image": {service("refused", `"not an image"`), "image"},
		"bounds the wrong way":      {service("refused", "example.com/app", `autoscaling.knative.dev/min-scale: "3"`, `autoscaling.knative.dev/max-scale: "2"`), "min-scale"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := shared.feed(t.Context(), c.manifest, "kubectl", "apply", "-f", "-")
			if err == nil {
				_, _ = shared.feed(t.Context(), c.manifest, "kubectl", "delete", "-f", "-")
				t.Fatalf("accepted: %s", out)
			}
			if !strings.Contains(out, c.want) {
				t.Errorf("refusal = %s, want it to name %q", out, c.want)
			}
		})
	}
}

func TestFailuresShowTheirReasonInTheServicesMessage(t *testing.T) {
	image := greeter(t, shared, "reason-source")
	for name, c := range map[string]struct{ manifest, want string }{
		"missing-image": {service("missing-image", "127.0.0.1:1/nothing/here:latest"), "nothing/here"},
		"crash-loop":    {service("crash-loop", image) + "        env:\n        - name: EXIT\n          value: \"5\"\n", "5"},
		"too-big":       {service("too-big", image) + "        resources:\n          requests:\n            cpu: \"500\"\n", "Insufficient cpu"},
	} {
		t.Run(name, func(t *testing.T) {
			shared.apply(t, c.manifest)
			eventually(t, "the reason", func() (bool, string) {
				seen := shared.jsonpath(t, "ksvc/"+name, `{range .status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`)
				return strings.Contains(seen, c.want) && !strings.HasPrefix(seen, "True"), seen
			})
		})
	}
}

package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"ebb.dev/ebb/test/conformance/kit/conduct"
	"ebb.dev/ebb/test/conformance/kit/outcome"
)

// The short part: quick tests that together touch deploying, updating, routing, timeouts, what an
// instance sees, volumes, probes, refusals, failures, protocols and drain.
const (
	shortTests = `^(v1/Test(ServiceCreateListAndDelete|ServiceBYOName|ServiceCreateAndUpdate|BlueGreenRoute|RevisionTimeout` +
		`|ContainerErrorMsg|ContainerExitingMsg|ProjectedComplex)` +
		`|runtime/Test(MustHaveCgroupConfigured|MustHaveFiles|ShouldHaveHeadersSet|ShouldNotContainerConstraints|Protocols|LivenessWithFail)` +
		`|e2e/Test(GRPCUnaryPing|WebSocketGracefulShutdown|DestroyPodWithRequests|RouteVisibilityChanges))$`
	shortSuites = "v1,runtime,e2e"
	shortSize   = 18
)

func TestShort(t *testing.T) {
	ebb := os.Getenv("EBB_BIN")
	if ebb == "" || os.Geteuid() != 0 {
		t.Skip("drives a built ebb as root: EBB_BIN must name it, as in `make test`")
	}
	results, err := run(t.Context(), options{
		Options: conduct.Options{
			Ebb: ebb, HTTP: "127.0.0.1:0", API: "127.0.0.1:0", Run: regexp.MustCompile(shortTests),
			Output: t.ArtifactDir(), Count: 1, Jobs: 3, Patience: 3 * time.Minute,
		},
		suites: shortSuites,
		images: []string{
			"autoscale", "failing", "grpc-ping", "hellovolume", "helloworld", "pizzaplanetv1", "pizzaplanetv2",
			"readiness", "runtime", "timeout", "wsserver",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != shortSize {
		t.Errorf("%d tests ran, want the %d of the short part", len(results), shortSize)
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			t.Logf("took %s", r.Took)
			if r.Result != outcome.Pass {
				t.Errorf("%s: %s\n%s", r.Result, r.Reason, r.Output)
			}
		})
	}
}

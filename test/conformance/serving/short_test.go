package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"ebb.dev/ebb/test/conformance/serving/outcome"
)

// The short part: quick tests that together touch deploying, updating, routing, what an instance sees,
// volumes, refusals and protocols.
const (
	shortTests = `^(v1/Test(ServiceCreateListAndDelete|ServiceBYOName|BlueGreenRoute|ContainerErrorMsg|ProjectedComplex)` +
		`|runtime/Test(MustHaveCgroupConfigured|MustHaveFiles|ShouldHaveHeadersSet|ShouldNotContainerConstraints|Protocols)` +
		`|e2e/TestGRPCUnaryPing)$`
	shortSuites = "v1,runtime,e2e"
)

func TestShort(t *testing.T) {
	ebb := os.Getenv("EBB_BIN")
	if ebb == "" || os.Geteuid() != 0 {
		t.Skip("drives a built ebb as root: EBB_BIN must name it, as in `make test`")
	}
	results, err := conduct(t.Context(), options{
		ebb: ebb, http: "127.0.0.1:0", api: "127.0.0.1:0", suites: shortSuites, run: regexp.MustCompile(shortTests),
		images: []string{"grpc-ping", "hellovolume", "helloworld", "pizzaplanetv1", "pizzaplanetv2", "runtime"},
		output: t.ArtifactDir(), count: 1, jobs: 3, patience: 3 * time.Minute, report: func(result) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) < 11 {
		t.Errorf("%d tests ran, want the 11 of the short part", len(results))
	}
	for _, r := range results {
		t.Run(r.name, func(t *testing.T) {
			t.Logf("took %s", r.Took)
			if r.Result != outcome.Pass {
				t.Errorf("%s: %s\n%s", r.Result, r.Reason, r.Output)
			}
		})
	}
}

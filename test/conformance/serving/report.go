package main

import (
	"fmt"
	"strings"
	"time"

	"ebb.dev/ebb/test/conformance/serving/outcome"
)

// exempt are the tests that need not pass, and why.
var exempt = map[string]string{
	"e2e/TestEgressTraffic":             "calls a host on the internet, which is not there",
	"e2e/TestQueueSideCarResourceLimit": "looks for a side-car, of which there is none",
	"e2e/TestRequestLogs":               "reads the log of a side-car, of which there is none",
}

// show prints one result.
func show(r result) {
	fmt.Printf("%-4s  %-60s %7.1fs", strings.ToUpper(string(r.Result)), r.name, r.Took.Seconds())
	if r.Reason != "" {
		fmt.Printf("  %s", strings.ReplaceAll(r.Reason, "\n", " "))
	}
	fmt.Println()
}

// summarize prints the totals; it fails if a test did that must pass.
func summarize(results []result, took time.Duration) error {
	count := map[outcome.Result]int{}
	var broken []string
	for i := range results {
		r := &results[i]
		count[r.Result]++
		if r.Result == outcome.Fail && exempt[r.name] == "" {
			broken = append(broken, fmt.Sprintf("%s (%s)", r.name, r.log))
		}
	}
	fmt.Printf("\n%d tests in %s: %d passed, %d failed, %d skipped\n", len(results), took.Round(time.Second),
		count[outcome.Pass], count[outcome.Fail], count[outcome.Skip])
	if len(broken) > 0 {
		return fmt.Errorf("%d tests failed that must pass; what they printed:\n  %s", len(broken), strings.Join(broken, "\n  "))
	}
	return nil
}

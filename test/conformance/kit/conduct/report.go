package conduct

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"ebb.dev/ebb/test/conformance/kit/outcome"
)

// Show prints one result.
func Show(r *Result) {
	fmt.Printf("%-4s  %-4s %-60s %7.1fs", strings.ToUpper(string(r.Result)), r.Group, r.Name, r.Took.Seconds())
	if r.Reason != "" {
		fmt.Printf("  %s", strings.ReplaceAll(r.Reason, "\n", " "))
	}
	fmt.Println()
}

// sum counts results.
type sum map[outcome.Result]int

func (s sum) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s[outcome.Pass], s[outcome.Fail], s[outcome.Skip])
}

// Summarize prints the sums, and whether tests that ran several times ended the same each time; it fails
// if a test did that must pass.
func Summarize(to io.Writer, results []Result, took time.Duration) error {
	all, groups := sum{}, map[string]sum{}
	var broken, torn []string
	most := 0
	for i := range results {
		r := &results[i]
		all[r.Result]++
		if groups[r.Group] == nil {
			groups[r.Group] = sum{}
		}
		groups[r.Group][r.Result]++
		if most = max(most, len(r.Runs)); !r.alike() {
			torn = append(torn, fmt.Sprintf("\n  %s %v", r.Name, r.Runs))
		}
		if r.Result == outcome.Fail && r.Exempt == "" {
			broken = append(broken, fmt.Sprintf("%s (%s)", r.Name, r.Log))
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "\n%d tests in %s: %s\n", len(results), took.Round(time.Second), all)
	if len(groups) > 1 {
		for _, group := range slices.Sorted(maps.Keys(groups)) {
			fmt.Fprintf(&text, "group %s: %s\n", group, groups[group])
		}
	}
	if most > 1 {
		fmt.Fprintf(&text, "alike in %d runs: %d of %d%s\n", most, len(results)-len(torn), len(results), strings.Join(torn, ""))
	}
	if _, err := io.WriteString(to, text.String()); err != nil {
		return fmt.Errorf("printing sums: %w", err)
	}
	if len(broken) > 0 {
		return fmt.Errorf("%d tests failed that must pass; what they printed:\n  %s", len(broken), strings.Join(broken, "\n  "))
	}
	return nil
}

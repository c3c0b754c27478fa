package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"ebb.dev/ebb/test/conformance/kit/conduct"
	"ebb.dev/ebb/test/conformance/kit/outcome"
)

// The short part: quick packages that together touch admission, scaling from nothing, and what is
// left when a ScaledObject goes.
const (
	shortPackages = `^internals/(scaled_object_validation|force_activation|restore_original)$`
	shortSize     = 3
)

func TestShort(t *testing.T) {
	ebb := os.Getenv("EBB_BIN")
	if ebb == "" || os.Geteuid() != 0 {
		t.Skip("drives a built ebb as root: EBB_BIN must name it, as in `make test`")
	}
	results, err := run(t.Context(), conduct.Options{
		Ebb: ebb, HTTP: "127.0.0.1:0", API: "127.0.0.1:0", Run: regexp.MustCompile(shortPackages),
		Output: t.ArtifactDir(), Count: 1, Jobs: shortSize, Patience: 4 * time.Minute,
	}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != shortSize {
		t.Errorf("%d packages ran, want the %d of the short part", len(results), shortSize)
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

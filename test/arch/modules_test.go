package arch

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the list of modules")

// TestModules keeps testdata/modules.txt, the third-party modules that each floor imports itself, so
// that a review sees when a floor begins to depend on something new.
func TestModules(t *testing.T) {
	owner := map[string]string{} // import path -> module
	for _, p := range list(t, "-deps", "-test", "./...") {
		if p.Module != nil && p.Module.Path != module {
			owner[p.ImportPath] = p.Module.Path
		}
	}
	used := map[string]map[string]bool{}
	for _, p := range ours(t) {
		at := floor(p.path())
		if at < 0 {
			continue
		}
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if m := owner[to]; m != "" {
				if used[floors[at]] == nil {
					used[floors[at]] = map[string]bool{}
				}
				used[floors[at]][m] = true
			}
		}
	}
	var got strings.Builder
	for _, f := range floors {
		names := []string{}
		for m := range used[f] {
			names = append(names, m)
		}
		slices.Sort(names)
		fmt.Fprintf(&got, "%s\n", f)
		for _, name := range names {
			fmt.Fprintf(&got, "\t%s\n", name)
		}
	}
	const file = "testdata/modules.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("modules imported (-listed +found); if that is wanted, run make generate:\n%s", diff)
	}
}

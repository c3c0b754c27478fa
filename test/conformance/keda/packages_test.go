package main

import (
	"path"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The numbers are what the ledger is held against.
func TestGroups(t *testing.T) {
	got := map[string]int{}
	for _, p := range packages() {
		got[p.group]++
	}
	if diff := cmp.Diff(map[string]int{"A": 22, "B": 19, "C": 37, "more": 4}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Packages are built side by side into one folder.
func TestLastNamesDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, p := range packages() {
		name := path.Base(p.path)
		if other, there := seen[name]; there {
			t.Errorf("%s and %s would be the same program", p.path, other)
		}
		seen[name] = p.path
	}
}

func TestSelected(t *testing.T) {
	cases := map[string]struct {
		groups, run string
		want        []string // nil: an error
	}{
		"a group and an expression":     {"A", "pause_scaledobject", []string{"internals/pause_scaledobject", "internals/pause_scaledobject_explicitly"}},
		"all groups where none is said": {"", "status_update|/cron$", []string{"scalers/cron", "internals/status_update"}},
		"a group that is not there":     {"Z", "", nil},
		"nothing matches":               {"B", "cron", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			found, err := selected(c.groups, regexp.MustCompile(c.run))
			if (err != nil) != (c.want == nil) {
				t.Fatal(err)
			}
			var got []string
			for _, p := range found {
				got = append(got, p.path)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

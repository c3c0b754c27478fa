package suite

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelect(t *testing.T) {
	cases := map[string]struct {
		wanted string
		first  []string
		size   int
	}{
		"nothing said is everything": {"", []string{"v1", "v1beta1", "runtime", "e2e"}, 15},
		"conformance is three":       {"conformance", []string{"v1", "v1beta1", "runtime"}, 3},
		"toggled are all others":     {"toggled", []string{"tagheader"}, 11},
		"names in the order given":   {"e2e,v1", []string{"e2e", "v1"}, 2},
		"nothing comes twice":        {"gc,toggled,gc", []string{"gc", "tagheader"}, 11},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Select(c.wanted)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != c.size {
				t.Errorf("got %s", names(got))
			}
			if diff := cmp.Diff(strings.Join(c.first, ", "), names(got[:len(c.first)])); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	if _, err := Select("v2"); err == nil || !strings.Contains(err.Error(), "v2") {
		t.Errorf("a suite that is not there: %v", err)
	}
}

// The numbers are what the ledger is held against: a new version of upstream changes them knowingly.
func TestTests(t *testing.T) {
	tests, err := Tests(t.Context(), All()...)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for name, functions := range tests {
		got[name] = len(functions)
	}
	want := map[string]int{
		"v1": 28, "v1beta1": 1, "runtime": 22, "e2e": 59, "clusterlocaldomaintls": 2, "domainmapping": 2,
		"externaldomaintls": 4, "gc": 1, "initcontainers": 1, "initscale": 1, "multicontainerprobing": 3,
		"pvc": 1, "securedefaults": 2, "systeminternaltls": 4, "tagheader": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

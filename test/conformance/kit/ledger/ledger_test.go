package ledger

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/test/conformance/kit/outcome"
)

func TestMerge(t *testing.T) {
	known := []string{"v1/TestA", "v1/TestB"}
	a := Entry{Test: "v1/TestA", Result: outcome.Pass}
	cases := map[string]struct{ old, fresh, want []Entry }{
		"a test that never ran counts as failed": {
			want: []Entry{{"v1/TestA", outcome.Fail, "has not run"}, {"v1/TestB", outcome.Fail, "has not run"}},
		},
		"what did not run now stays": {
			old:   []Entry{a, {"v1/TestB", outcome.Skip, "not here"}},
			fresh: []Entry{{"v1/TestA", outcome.Fail, "broke"}},
			want:  []Entry{{"v1/TestA", outcome.Fail, "broke"}, {"v1/TestB", outcome.Skip, "not here"}},
		},
		"a test that upstream dropped goes": {
			old:  []Entry{a, {"v1/TestB", outcome.Pass, ""}, {"v1/TestGone", outcome.Pass, ""}},
			want: []Entry{a, {"v1/TestB", outcome.Pass, ""}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Merge(c.old, c.fresh, known)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.json")
	if got, err := Read(path); err != nil || got != nil {
		t.Errorf("a ledger that is not there: %v, %v", got, err)
	}
	want := []Entry{{"v1/TestA", outcome.Pass, ""}, {"v1/TestB", outcome.Fail, "got <nil> & \"nothing\"\nmore"}}
	for range 2 { // the second time over the first
		if err := Write(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

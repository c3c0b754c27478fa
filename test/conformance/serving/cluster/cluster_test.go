package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/test/conformance/serving/suite"
)

// fakeEbb answers every read with the same settings and keeps what it is told to change.
const fakeEbb = `#!/bin/sh
for last; do :; done
case "$*" in
*" get configmap "*) echo '{"data":{"known":"before","untouched":"yes"}}' ;;
*" patch configmap "*) echo "$6 $last" >>"$(dirname "$0")/patches" ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`

func TestSettingsArePutBack(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "ebb")
	if err := os.WriteFile(binary, []byte(fakeEbb), 0o700); err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Binary: binary, Data: dir}
	restore, err := c.Set(t.Context(), []suite.Setting{
		{Map: "config-network", Key: "known", Value: "after"}, {Map: "config-network", Key: "new", Value: "one"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	patches, err := os.ReadFile(filepath.Join(dir, "patches"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`config-network {"data":{"known":"after","new":"one"}}`,
		`config-network {"data":{"known":"before","new":null}}`,
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(patches)), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRegistry(t *testing.T) {
	cases := map[string]struct{ status, want string }{
		"the status names it":            {`{"state":"ready","registry":"127.0.0.1:5000"}`, "127.0.0.1:5000"},
		"an ebb that is not ready":       {`{"state":"starting"}`, ""},
		"a status that cannot be read":   {`{`, ""},
		"an ebb that was never up there": {"", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.status != "" {
				if err := os.WriteFile(filepath.Join(dir, "status.json"), []byte(c.status), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := (&Cluster{Data: dir}).Registry()
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

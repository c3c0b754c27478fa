package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/test/conformance/kit/cluster"
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
	c := &Cluster{cluster.Cluster{Binary: binary, Data: dir}}
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

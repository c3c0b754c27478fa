package arch

import (
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// A family of adapters is a folder below internal/adapter with an interface, and a suite in
// <family>test that every implementation runs.
//
// suites tells, by family, the import path of the suite; an implementation is any folder directly
// below the family that is not in parts.
var suites = map[string]struct {
	suite string
	parts []string // folders that are no implementations
}{
	"runtime":    {suite: "internal/adapter/runtime/runtimetest", parts: []string{"runtimetest"}},
	"trigger":    {suite: "internal/adapter/trigger/triggertest", parts: []string{"triggertest", "endpoint", "jolokia", "schema", "all"}},
	"credential": {suite: "internal/adapter/credential/credentialtest", parts: []string{"credentialtest", "all"}},
	"build":      {suite: "internal/adapter/build/buildtest", parts: []string{"buildtest"}},
}

func TestEveryAdapterRunsItsSuite(t *testing.T) {
	packages := map[string]pkg{}
	for _, p := range ours(t) {
		packages[p.path()] = p
	}
	families, err := os.ReadDir("../../internal/adapter")
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		name := family.Name()
		of, known := suites[name]
		if !known {
			t.Errorf("internal/adapter/%s has no suite in test/arch", name)
			continue
		}
		for _, folder := range folders(t, "../../internal/adapter/"+name) {
			at := path.Join("internal/adapter", name, folder)
			p, isPackage := packages[at]
			if !isPackage || slices.Contains(of.parts, folder) {
				continue
			}
			tests := slices.Concat(p.TestImports, p.XTestImports)
			if !slices.Contains(tests, module+"/"+of.suite) {
				t.Errorf("%s does not run the suite of its family, %s", at, of.suite)
			}
		}
	}
}

// folders returns the names of the folders in dir.
func folders(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "testdata" {
			names = append(names, e.Name())
		}
	}
	return names
}

package image

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, i := range slices.Concat(standIns(), servers()) {
		for _, name := range i.Names {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
			registry, rest, _ := strings.Cut(name, "/")
			if !strings.Contains(registry, ".") || !strings.Contains(rest, ":") {
				t.Errorf("%s has no registry or no tag, so it is not what the node asks for", name)
			}
		}
	}
}

func TestScriptsAreThere(t *testing.T) {
	for _, i := range servers() {
		if len(i.Entrypoint) == 0 {
			continue
		}
		if script, is := strings.CutPrefix(i.Entrypoint[0], "/"); is && strings.HasPrefix(script, "entry/") {
			if _, err := entry.ReadFile(script); err != nil {
				t.Errorf("%s starts with %s: %v", i.Names[0], script, err)
			}
		}
	}
}

func TestPackagesAreMatched(t *testing.T) {
	for _, i := range slices.Concat(standIns(), servers()) {
		if _, err := regexp.Compile(i.For); err != nil {
			t.Errorf("%s: %v", i.Names[0], err)
		}
	}
}

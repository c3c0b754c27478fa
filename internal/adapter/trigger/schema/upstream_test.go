package schema_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/adapter/trigger/schema"
)

// blank stands where a manifest is filled in when a test of upstream's runs.
const blank = "1"

var (
	raw         = regexp.MustCompile("(?s)`([^`]*)`")
	placeholder = regexp.MustCompile(`\{\{[^}]*\}\}`)
	control     = regexp.MustCompile(`(?m)^\s*\{\{-?\s*(if|end|else|range|with)[^}]*\}\}\s*$`)
	separator   = regexp.MustCompile(`(?m)^---\s*$`)
)

// block is a trigger in a manifest of upstream's tests.
type block struct {
	where    string
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata"`
}

// blocks reads the triggers of all manifests in upstream's end-to-end tests.
func blocks(t *testing.T) []block {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	if err != nil {
		t.Fatalf("asking for upstream's folder: %v", err)
	}
	var found []block
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(out)), "tests"), func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range raw.FindAllStringSubmatch(string(text), -1) {
			for _, document := range separator.Split(m[1], -1) {
				found = append(found, read(filepath.Base(path), document)...)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func read(where, document string) []block {
	document = placeholder.ReplaceAllString(control.ReplaceAllString(document, ""), blank)
	if !strings.Contains(document, "triggers:") {
		return nil
	}
	var object struct {
		Spec struct {
			Triggers []struct {
				Type     string         `json:"type"`
				Metadata map[string]any `json:"metadata"`
			} `json:"triggers"`
		} `json:"spec"`
	}
	if yaml.Unmarshal([]byte(document), &object) != nil {
		return nil
	}
	var out []block
	for _, trigger := range object.Spec.Triggers {
		b := block{where: where, Type: trigger.Type, Metadata: map[string]string{}}
		for name, value := range trigger.Metadata {
			if text, ok := value.(string); ok {
				b.Metadata[name] = text
			} else {
				b.Metadata[name] = blank
			}
		}
		out = append(out, b)
	}
	return out
}

func TestNothingInUpstreamsManifestsIsRefused(t *testing.T) {
	found := blocks(t)
	types := map[string]bool{}
	for _, b := range found {
		types[b.Type] = true
		for _, p := range schema.Check(b.Type, b.Metadata, nil, nil) {
			filledIn := strings.Contains(b.Metadata[p.Parameter], blank) || strings.Contains(b.Type, blank)
			if p.Refused && !filledIn {
				t.Errorf("%s: %s: %s", b.where, b.Type, p)
			} else if !p.Refused {
				t.Logf("%s: %s: %s", b.where, b.Type, p)
			}
		}
	}
	if len(found) < 150 || len(types) < 50 {
		t.Errorf("%d triggers of %d types were read: too few to tell", len(found), len(types))
	}
}

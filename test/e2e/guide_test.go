package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// An example is one fenced block of a page of the guide. A comment on the line above may say how it
// is taken:
//
//	<!-- not run: why -->    it cannot be run here
//	<!-- run for 3s -->      it does not end by itself
//	<!-- fails: words -->    it ends with an error that has these words
type example struct {
	line         int
	kind         string // what follows the fence: "" is a shell's, "yaml" a manifest
	text, remark string
}

var remark = regexp.MustCompile(`^<!-- (.*) -->$`)

// examples reads a page.
func examples(t *testing.T, page string) []example {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []example
	var open *example
	above := ""
	for n, line := range strings.Split(string(data), "\n") {
		switch kind, fence := strings.CutPrefix(line, "```"); {
		case fence && open == nil:
			open = &example{line: n + 1, kind: kind, remark: above}
		case fence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
		above = ""
		if m := remark.FindStringSubmatch(line); m != nil {
			above = m[1]
		}
	}
	if open != nil {
		t.Fatalf("%s: the block of line %d has no end", page, open.line)
	}
	return out
}

// reader is somebody who follows the guide: with a home, and thus a data folder, of his own.
type reader struct {
	home    string
	env     []string
	replace *strings.Replacer // what the guide names and this machine may have in use
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{home: t.TempDir()}
	var ports [5]string
	for n := range ports {
		address, err := freeAddress()
		if err != nil {
			t.Fatal(err)
		}
		_, ports[n], _ = strings.Cut(address, ":")
	}
	r.replace = strings.NewReplacer("localhost:8080", "localhost:"+ports[0], "127.0.0.1:8080", "127.0.0.1:"+ports[0],
		"127.0.0.1:8081", "127.0.0.1:"+ports[2], "127.0.0.1:6444", "127.0.0.1:"+ports[3], "localhost:8443", "localhost:"+ports[4], "/tmp/second", filepath.Join(r.home, "second"))
	bin, err := filepath.Abs(os.Getenv("EBB_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	// The guide's `ebb up` takes the default ports, which another ebb on this machine may have.
	wrapper := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in up*--http*) ;; up*) set -- \"$@\" --http 127.0.0.1:%s --api 127.0.0.1:%s --https 127.0.0.1:%s ;; esac\nexec %s \"$@\"\n", ports[0], ports[1], ports[4], bin)
	if err := os.Mkdir(filepath.Join(r.home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.home, "bin", "ebb"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(r.home, "examples"), os.DirFS("../../examples")); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(), "HOME="+r.home, "PATH="+filepath.Join(r.home, "bin")+":"+os.Getenv("PATH"))
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		r.env = append(r.env, name+"="+strings.TrimSpace(string(out)))
	}
	if kn, err := filepath.Abs(os.Getenv("EBB_KN")); err == nil && os.Getenv("EBB_KN") != "" {
		if err := os.Symlink(kn, filepath.Join(r.home, "bin", "kn")); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// shell runs a script as he would type it, and gives what it printed.
func (r *reader) shell(ctx context.Context, script, stdin string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", r.replace.Replace(script))
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.WaitDelay = r.home, r.env, strings.NewReader(stdin), time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// try does what one example says.
func (r *reader) try(t *testing.T, e example) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	script, stdin := e.text, "yes\n" // where it asks
	words, _ := strings.CutPrefix(e.remark, "fails: ")
	during, endless := strings.CutPrefix(e.remark, "run for ")
	switch {
	case e.kind == "yaml":
		var parsed map[string]any
		if err := yaml.Unmarshal([]byte(e.text), &parsed); err != nil {
			t.Fatalf("not YAML: %v\n%s", err, e.text)
		}
		if parsed["apiVersion"] == nil {
			return // a part of a manifest
		}
		script, stdin = "ebb kubectl apply -f -", e.text
	case endless:
		d, err := time.ParseDuration(during)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	out, err := r.shell(ctx, script, stdin)
	switch failed := err != nil; {
	case endless && ctx.Err() != nil:
	case words != e.remark && (!failed || !strings.Contains(out, words)):
		t.Errorf("it should fail with %q: %v\n%s\n%s", words, err, e.text, out)
	case words == e.remark && failed:
		t.Errorf("%v\n%s\n%s", err, e.text, out)
	}
}

// prelude is what every page begins with, the tour in the README; again makes it so for the next page.
const (
	prelude = "ebb deploy examples/hello-go; ebb kubectl apply -f examples/hello.yaml; ebb kubectl wait ksvc hello --for=condition=Ready"
	again   = "ebb kubectl delete ksvc,domainmapping --all; ebb kubectl replace -f settings.json; " + prelude
)

// settings writes the cluster's settings, as they are now, to a file that can be given back.
func (r *reader) settings(t *testing.T) {
	t.Helper()
	out, err := r.shell(t.Context(), "ebb kubectl get configmap -n knative-serving -o json", "")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var list struct {
		APIVersion string           `json:"apiVersion"`
		Kind       string           `json:"kind"`
		Items      []map[string]any `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		metadata, ok := item["metadata"].(map[string]any)
		if !ok {
			t.Fatalf("no metadata in %v", item)
		}
		delete(metadata, "resourceVersion")
		delete(metadata, "uid")
	}
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.home, "settings.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTheGuide follows every page from top to bottom. Blocks of one page build on each other.
func TestTheGuide(t *testing.T) {
	pages, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	settled := newReader(t)
	down := func(r *reader) func() {
		return func() { _, _ = r.shell(context.Background(), "ebb down || true; ebb down --data /tmp/second", "") }
	}
	t.Cleanup(down(settled))
	if out, err := settled.shell(t.Context(), "ebb up --detach; "+prelude, ""); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	settled.settings(t)
	for _, page := range pages {
		all := examples(t, page)
		if len(all) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			r := settled
			if filepath.Base(page) == "start.md" { // it starts and stops by itself
				r = newReader(t)
				t.Cleanup(down(r))
			} else if out, err := r.shell(t.Context(), again, ""); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, e := range all {
				t.Run(fmt.Sprint("line ", e.line), func(t *testing.T) {
					if why, skip := strings.CutPrefix(e.remark, "not run: "); skip {
						t.Log("not run: " + why)
						return
					}
					r.try(t, e)
				})
			}
		})
	}
}

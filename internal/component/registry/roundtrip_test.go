package registry

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/build"
	"ebb.dev/ebb/internal/adapter/build/gosource"
	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/unpack"
	"ebb.dev/ebb/internal/platform/image"
)

const program = `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "GREETING") })
	panic(http.ListenAndServe(":8080", nil))
}
`

// TestSourceBecomesRootFolders goes the whole way of a deploy: folder, image, registry, node; then
// again after one line has changed.
func TestSourceBecomesRootFolders(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil || os.Geteuid() != 0 {
		t.Skip("it takes root and a Go toolchain")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := t.TempDir()
	_, addr := serve(t, Config{Dir: t.TempDir()})
	source := image.Open(addr, log)
	store, err := unpack.New(t.TempDir(), source, log)
	if err != nil {
		t.Fatal(err)
	}
	var before []string
	for _, greeting := range []string{"hello", "hello again"} {
		write := func(name, content string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("go.mod", "module example.test/hello\n\ngo 1.22\n")
		write("main.go", strings.ReplaceAll(program, "GREETING", greeting))
		began := time.Now()
		out, err := (&gosource.Builder{}).Build(t.Context(), build.Request{Dir: dir, Name: "hello"})
		if err != nil {
			t.Fatal(err)
		}
		built := time.Now()
		pushed, err := source.Push(t.Context(), addr+"/hello:latest", out.Taggable(), nil)
		if err != nil {
			t.Fatal(err)
		}
		sent := time.Now()
		resolved, err := source.Digest(t.Context(), addr+"/hello:latest", nil)
		if err != nil || resolved != pushed {
			t.Fatalf("resolved to %v, pushed %v (%v)", resolved, pushed, err)
		}
		img, err := store.Pull(t.Context(), runtime.PullRequest{Reference: resolved.Name()})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("build %v, push %v, unpack %v", built.Sub(began), sent.Sub(built), time.Since(sent))
		last := len(img.RootFS) - 1
		content, err := os.ReadFile(filepath.Join(img.RootFS[last], "app/hello"))
		if err != nil || !strings.Contains(string(content), greeting) {
			t.Errorf("the program does not say %q (%v)", greeting, err)
		}
		for i, root := range before {
			if (root == img.RootFS[i]) == (i == last) {
				t.Errorf("layer %d: before %s, after %s", i, root, img.RootFS[i])
			}
		}
		before = img.RootFS
	}
}

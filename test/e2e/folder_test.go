package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUpRefusesWhatCannotWork(t *testing.T) {
	foreign := t.TempDir()
	if err := os.Chmod(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for name, c := range map[string]struct {
		data, http, api string
		says            []string
	}{
		"a folder with other things in it": {foreign, shared.http, shared.api, []string{"thesis.txt", "empty or a new folder"}},
		"one address for both":             {empty, "127.0.0.1:29998", "127.0.0.1:29998", []string{"--http", "--api", "own"}},
		"an address others reach":          {empty, "0.0.0.0:29998", "127.0.0.1:29997", []string{"--http", "loopback"}},
		"no port":                          {empty, "127.0.0.1:0", "127.0.0.1:29997", []string{"--http", "host:port"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := &installation{bin: shared.bin, data: c.data}
			out, err := i.command(t.Context(), "up", "--detach", "--http", c.http, "--api", c.api)
			if err == nil {
				t.Fatalf("up succeeded: %s", out)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("up said %q, not %q", out, want)
				}
			}
		})
	}
	if info, err := os.Stat(foreign); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder's mode is %v now: %v", info.Mode(), err)
	}
}

// TestAwkwardDataFolder uses a path with spaces, longer than a socket's name may be, by a link: pods
// run there, outlive a kill, and go when the folder is named another way.
func TestAwkwardDataFolder(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "a folder with spaces", strings.Repeat("long", 40))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(parent, link); err != nil {
		t.Fatal(err)
	}
	i, err := newInstallation(filepath.Join(link, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := i.command(context.Background(), "down"); err != nil {
			t.Errorf("stopping ebb: %v\n%s", err, out)
		}
	})
	i.up(t)
	image := greeter(t, i, "awkward")
	i.apply(t, pod("stays", image, ""))
	eventually(t, "the pod ready", func() (bool, string) {
		seen := i.jsonpath(t, "pod/stays", `{.status.conditions[?(@.type=="Ready")].status}`)
		return seen == "True", seen
	})
	if out := i.do(t, "describe", "awkward"); !strings.Contains(out, "awkward-00001") {
		t.Errorf("describe = %s", out)
	}
	kill(t, i)
	real := &installation{bin: i.bin, data: filepath.Join(parent, "data")}
	if len(leftovers(t, real)) == 0 {
		t.Error("nothing was running after the kill")
	}
	i.do(t, "down")
	for what, found := range leftovers(t, real) {
		t.Errorf("%s left behind:\n%s", what, found)
	}
}

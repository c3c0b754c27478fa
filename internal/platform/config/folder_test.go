package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMakeRefusesAFolderOfOthers(t *testing.T) {
	cases := map[string]struct {
		holds []string
		fine  bool
	}{
		"empty":                           {nil, true},
		"a new file system":               {[]string{"lost+found"}, true},
		"a start that went no further":    {[]string{"lock", "ebb.log", ".tmp-1"}, true},
		"one of ours":                     {[]string{"identity.json", "etcd", "anything"}, true},
		"somebody's home":                 {[]string{".bashrc", "ebb.log"}, false},
		"another program's data and lock": {[]string{"lock", "database"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, file := range c.holds {
				if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Folder(dir).Make()
			if (err == nil) != c.fine {
				t.Fatalf("Make() = %v, want it fine: %v", err, c.fine)
			}
			info, statErr := os.Stat(dir)
			if statErr != nil {
				t.Fatal(statErr)
			}
			if closed := info.Mode().Perm() == 0o700; closed != c.fine {
				t.Errorf("mode = %v", info.Mode().Perm())
			}
			if !c.fine && !strings.Contains(err.Error(), "other things") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestResolveFollowsLinksAndRelativePaths(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for name, c := range map[string]struct{ folder, want string }{
		"a relative path":             {"real", dir + "/real"},
		"a link":                      {dir + "/link", dir + "/real"},
		"not there yet, under a link": {"link/new/er", dir + "/real/new/er"},
		"spaces":                      {"./da ta", dir + "/da ta"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Folder(c.folder).Resolve()
			if err != nil || string(got) != c.want {
				t.Errorf("Resolve(%q) = %q, %v; want %q", c.folder, got, err, c.want)
			}
		})
	}
}

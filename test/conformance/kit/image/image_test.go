package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	i := Image{Entrypoint: []string{"/bin/hello"}, User: "7", Env: []string{"A=b"}, Path: ":/more"}
	var base Files
	base.Folder("/tmp", 0o1777, 0)
	layer, err := base.Layer()
	if err != nil {
		t.Fatal(err)
	}
	i.Base = layer
	i.Files.Folder("/home/someone", 0o700, 7)
	i.Files.Add("/bin/hello", 0o555, []byte("a program"))
	i.Files.Add("/bin/hello", 0o755, []byte("another of the same name"))
	i.Files.Link("/bin/hi", "hello")
	reference := strings.TrimPrefix(server.URL, "http://") + "/some/hello:1"
	if err := i.Push(t.Context(), reference); err != nil {
		t.Fatal(err)
	}
	image, err := crane.Pull(reference)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(config.OS, config.Config.Entrypoint, config.Config.User, config.Config.WorkingDir, config.Config.Env)
	if want := "linux[/bin/hello]7/[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/more A=b]"; got != want {
		t.Errorf("settings are %s, want %s", got, want)
	}
	files := map[string]string{}
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	for archive := tar.NewReader(content); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = fmt.Sprintf("%#o %d: %s%s", h.Mode, h.Uid, data, h.Linkname)
	}
	want := map[string]string{
		"bin": "0755 0: ", "bin/hello": "0555 0: a program", "bin/hi": "0777 0: hello",
		"home": "0755 0: ", "home/someone": "0700 7: ", "tmp": "01777 0: ",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	var f Files
	if err := f.Tree(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Tree(t.Context(), filepath.Join(dir, "not there")); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
	outside := filepath.Join(dir, "outside")
	if err := os.Symlink("/not/there", outside); err != nil {
		t.Fatal(err)
	}
	if err := f.Tree(t.Context(), outside); err != nil {
		t.Errorf("a link: %v", err)
	}
	var got []string
	for _, h := range f.headers {
		got = append(got, fmt.Sprintf("%s %#o %s", strings.TrimPrefix("/"+h.Name, dir), h.Mode, h.Linkname))
	}
	if diff := cmp.Diff([]string{"/a/file 0600 ", "/a/link 0777 file", "/outside 0777 /not/there"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestProgramBringsItsLibraries(t *testing.T) {
	program, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	var f Files
	if err := f.Program(t.Context(), program, "/bin/shell"); err != nil {
		t.Fatal(err)
	}
	if _, there := f.content["bin/shell"]; !there {
		t.Error("the program is not there")
	}
	out, err := exec.Command("ldd", program).Output()
	if err == nil && strings.Contains(string(out), "libc.so") && len(f.content) < 2 {
		t.Error("its libraries are not there")
	}
	if err := f.Program(t.Context(), "/not/there", "/bin/x"); err == nil {
		t.Error("a program that is not there is no error")
	}
}

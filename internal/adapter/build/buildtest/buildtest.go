// Package buildtest is the suite that every build.Builder passes.
package buildtest

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"ebb.dev/ebb/internal/adapter/build"
)

// Subject is a builder and sources in its language.
type Subject struct {
	Builder build.Builder
	// Server writes a program that listens on $PORT, answers every request with the greeting, and
	// stops with code 0 on SIGTERM. It is called again to change the greeting.
	Server func(t *testing.T, dir, greeting string)
	// Tiny writes the smallest program there is, for builds that nobody runs.
	Tiny func(t *testing.T, dir string)
	// Broken writes a program with one mistake and says where.
	Broken func(t *testing.T, dir string) (file string, line int)
}

// Run checks a builder.
func Run(t *testing.T, s Subject) {
	t.Run("folders that are not its own", s.otherFolders)
	t.Run("a program that runs", s.program)
	t.Run("the same source makes the same image", s.reproducible)
	t.Run("a change is one layer", s.change)
	t.Run("several platforms", s.platforms)
	t.Run("broken source", s.broken)
	t.Run("an end in the middle", s.cancelled)
}

// Build builds a folder or fails the test.
func Build(t *testing.T, b build.Builder, r build.Request) build.Result {
	t.Helper()
	began := time.Now()
	out, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v", time.Since(began).Round(time.Millisecond))
	return out
}

func folder(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s Subject) otherFolders(t *testing.T) {
	empty, text := folder(t, "empty"), folder(t, "text")
	if err := os.WriteFile(filepath.Join(text, "README.md"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{empty, text} {
		if err := s.Builder.Detect(dir); !errors.Is(err, build.ErrNotMine) {
			t.Errorf("detecting %s: %v, want %v", filepath.Base(dir), err, build.ErrNotMine)
		}
		if _, err := s.Builder.Build(t.Context(), build.Request{Dir: dir}); err == nil {
			t.Errorf("%s was built", filepath.Base(dir))
		}
	}
	if err := s.Builder.Detect(filepath.Join(empty, "missing")); err == nil {
		t.Error("a folder that is not there was detected")
	}
}

func (s Subject) program(t *testing.T) {
	dir := folder(t, "Hello_World")
	s.Server(t, dir, "hello")
	if err := s.Builder.Detect(dir); err != nil {
		t.Fatal(err)
	}
	img := Build(t, s.Builder, build.Request{Dir: dir}).Image
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	p := Start(t, img)
	if got := p.Get(t, "/"); got != "hello" {
		t.Errorf("it answers %q", got)
	}
	p.Stop(t)
}

func (s Subject) reproducible(t *testing.T) {
	var digests []v1.Hash
	for range 2 {
		dir := folder(t, "same")
		s.Server(t, dir, "hello")
		h, err := Build(t, s.Builder, build.Request{Dir: dir}).Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, h)
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds: %s and %s", digests[0], digests[1])
	}
}

func (s Subject) change(t *testing.T) {
	dir := folder(t, "changing")
	s.Server(t, dir, "before")
	before := layerDigests(t, Build(t, s.Builder, build.Request{Dir: dir}).Image)
	s.Server(t, dir, "after it")
	after := layerDigests(t, Build(t, s.Builder, build.Request{Dir: dir}).Image)
	last := len(before) - 1
	if len(after) != len(before) || !slices.Equal(before[:last], after[:last]) {
		t.Errorf("layers before %v, after %v", before, after)
	}
	if before[last] == after[last] {
		t.Error("the program did not change")
	}
}

func (s Subject) platforms(t *testing.T) {
	dir := folder(t, "many")
	s.Tiny(t, dir)
	want := []v1.Platform{
		{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "arm", Variant: "v7"},
	}
	out := Build(t, s.Builder, build.Request{Dir: dir, Platforms: want})
	if out.Index == nil {
		t.Fatal("no index")
	}
	manifest, err := out.Index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, child := range manifest.Manifests {
		img, err := out.Index.Image(child.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(want) || !child.Platform.Equals(want[i]) || !config.Platform().Equals(want[i]) {
			t.Errorf("image %d is for %v, its config for %v", i, child.Platform, config.Platform())
		}
	}
	if len(manifest.Manifests) != len(want) {
		t.Errorf("%d images, want %d", len(manifest.Manifests), len(want))
	}
	_, err = s.Builder.Build(t.Context(), build.Request{Dir: dir, Platforms: []v1.Platform{{OS: "windows", Architecture: "amd64"}}})
	if !errors.Is(err, build.ErrSource) {
		t.Errorf("another system: %v", err)
	}
}

func (s Subject) broken(t *testing.T) {
	dir := folder(t, "broken")
	file, line := s.Broken(t, dir)
	var printed strings.Builder
	_, err := s.Builder.Build(t.Context(), build.Request{Dir: dir, Progress: &printed})
	compile, ok := errors.AsType[*build.CompileError](err)
	if !ok || !errors.Is(err, build.ErrSource) {
		t.Fatalf("got %v, want a compile error", err)
	}
	if len(compile.Problems) == 0 || compile.Problems[0].File != file || compile.Problems[0].Line != line {
		t.Errorf("problems %v, want one at %s:%d", compile.Problems, file, line)
	}
	if want := file + ":" + strconv.Itoa(line); !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %s", err, want)
	}
}

func (s Subject) cancelled(t *testing.T) {
	dir := folder(t, "cancelled")
	s.Tiny(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Builder.Build(ctx, build.Request{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func layerDigests(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, layer := range layers {
		h, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.String())
	}
	return out
}

// Process is an image's program, run from its unpacked files on this machine.
type Process struct {
	command *exec.Cmd
	url     string
	client  *http.Client
}

// Start unpacks an image, checks that its config is one that Kubernetes runs without a doubt, and
// starts its program as the image says, $PORT being one that was free.
func Start(t *testing.T, img v1.Image, env ...string) *Process {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	user, _, _ := strings.Cut(config.Config.User, ":")
	if id, err := strconv.Atoi(user); err != nil || id == 0 {
		t.Errorf("user %q: runAsNonRoot takes a number that is not 0", config.Config.User)
	}
	if !slices.Contains(config.Config.Env, "PORT=8080") {
		t.Errorf("environment %v has no PORT", config.Config.Env)
	}
	root := extract(t, img)
	if info, err := os.Stat(filepath.Join(root, "tmp")); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("/tmp: %v, %v", info, err)
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	port := freePort(t)
	entry := config.Config.Entrypoint
	command := exec.CommandContext(t.Context(), filepath.Join(root, entry[0]), append(entry[1:], config.Config.Cmd...)...)
	command.Env = append(slices.Concat(config.Config.Env, env), "PORT="+port)
	command.Stdout, command.Stderr = t.Output(), t.Output()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if command.ProcessState == nil {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	})
	return &Process{command: command, url: "http://127.0.0.1:" + port, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Do sends a GET request, waiting for the program to listen.
func (p *Process) Do(t *testing.T, path string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.client.Do(req)
		if errors.Is(err, syscall.ECONNREFUSED) {
			select {
			case <-ctx.Done():
				t.Fatal("it never listened")
			case <-tick.C:
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		content, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(content)
	}
}

// Get is Do for answers that must be 200.
func (p *Process) Get(t *testing.T, path string) string {
	t.Helper()
	status, body := p.Do(t, path)
	if status != http.StatusOK {
		t.Errorf("GET %s: %d %s", path, status, body)
	}
	return body
}

// Terminate sends SIGTERM.
func (p *Process) Terminate(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// Stop sends SIGTERM and waits for a clean end.
func (p *Process) Stop(t *testing.T) {
	t.Helper()
	p.Terminate(t)
	if err := p.command.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// extract writes an image's files to a folder, modes kept and owners not.
func extract(t *testing.T, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	content := mutate.Extract(img)
	defer content.Close()
	for reader := tar.NewReader(content); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s is of %v: times change digests", h.Name, h.ModTime)
		}
		if h.Typeflag == tar.TypeDir {
			err = root.MkdirAll(h.Name, 0o755)
		} else {
			err = writeFile(root, h, reader)
		}
		if err == nil {
			err = root.Chmod(h.Name, h.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func writeFile(root *os.Root, h *tar.Header, content io.Reader) error {
	f, err := root.Create(h.Name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

package unpack

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/platform/image"
)

// far is a registry that counts and may interfere.
type far struct {
	addr  string
	close func()
	blobs atomic.Int64 // fetched
	all   atomic.Int64 // requests
	on    atomic.Pointer[func(w http.ResponseWriter, r *http.Request) (done bool)]
}

func newFar(t *testing.T) *far {
	t.Helper()
	f := &far{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.all.Add(1)
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			f.blobs.Add(1)
		}
		if on := f.on.Load(); on != nil && (*on)(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.addr, f.close = strings.TrimPrefix(server.URL, "http://"), server.Close
	return f
}

func (f *far) intercept(on func(w http.ResponseWriter, r *http.Request) bool) { f.on.Store(&on) }

func (f *far) put(t *testing.T, repository string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(f.addr + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func layers(t *testing.T, n int64) v1.Image {
	t.Helper()
	img, err := random.Image(1000, n)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{
		Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "65532", WorkingDir: "/home",
		StopSignal: "SIGINT", Volumes: map[string]struct{}{"/data": {}, "/cache": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers takes root")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s, err := New(dir, image.Open("", log), log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pull(t *testing.T, s *Store, reference string) runtime.Image {
	t.Helper()
	img, err := s.Pull(t.Context(), runtime.PullRequest{Reference: reference})
	if err != nil {
		t.Fatal(err)
	}
	checkRoots(t, img)
	return img
}

func checkRoots(t *testing.T, img runtime.Image) {
	t.Helper()
	for _, root := range img.RootFS {
		if entries, err := os.ReadDir(root); err != nil || len(entries) == 0 {
			t.Errorf("layer %s: %v, %v", root, entries, err)
		}
	}
}

func folders(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, entry := range entries {
		out = append(out, entry.Name())
	}
	return out
}

func TestPulledImagesArePresentFromThenOn(t *testing.T) {
	f, dir := newFar(t), t.TempDir()
	s := open(t, dir)
	digest := f.put(t, "team/app:v1", layers(t, 3))
	for _, reference := range []string{"/team/app:v1", "/team/app@" + digest} {
		if _, err := s.Present(t.Context(), f.addr+reference); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s before the pull: %v", reference, err)
		}
	}
	pulled := pull(t, s, f.addr+"/team/app:v1")
	want := runtime.Image{
		Reference: f.addr + "/team/app:v1", Digest: f.addr + "/team/app@" + digest, SizeBytes: 3000, ConfigID: pulled.ConfigID, RootFS: pulled.RootFS,
		Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, Env: []string{"A=b"}, User: "65532", WorkingDir: "/home",
		StopSignal: "SIGINT", Volumes: []string{"/cache", "/data"},
	}
	if diff := cmp.Diff(want, pulled); diff != "" || len(pulled.RootFS) != 3 {
		t.Errorf("pulled (-want +got):\n%s", diff)
	}

	f.close() // from here on the network has nothing to give
	for what, s := range map[string]*Store{"same process": s, "after a restart": open(t, dir)} {
		for _, reference := range []string{"/team/app:v1", "/team/app@" + digest, "/team/app:v9@" + digest} {
			want.Reference = f.addr + reference
			got, err := s.Present(t.Context(), f.addr+reference)
			if err != nil {
				t.Errorf("%s: %s: %v", what, reference, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", what, reference, diff)
			}
		}
		if _, err := s.Pull(t.Context(), runtime.PullRequest{Reference: f.addr + "/team/app@" + digest}); err != nil {
			t.Errorf("%s: pulling a digest that is here: %v", what, err)
		}
		if _, err := s.Pull(t.Context(), runtime.PullRequest{Reference: f.addr + "/team/app:v1"}); err == nil {
			t.Errorf("%s: a tag must be asked for", what)
		}
		if list, err := s.List(t.Context()); err != nil || len(list) != 1 || list[0].Digest != want.Digest {
			t.Errorf("%s: list %v, %v", what, list, err)
		}
	}
}

func TestTagsFollowTheRegistry(t *testing.T) {
	f := newFar(t)
	s := open(t, t.TempDir())
	first := f.put(t, "app:v1", layers(t, 1))
	pull(t, s, f.addr+"/app:v1")
	second := f.put(t, "app:v1", layers(t, 1))
	if got, _ := s.Present(t.Context(), f.addr+"/app:v1"); !strings.HasSuffix(got.Digest, first) {
		t.Errorf("present before the next pull: %s", got.Digest)
	}
	if got := pull(t, s, f.addr+"/app:v1"); !strings.HasSuffix(got.Digest, second) {
		t.Errorf("pulled: %s", got.Digest)
	}
	for reference, want := range map[string]string{":v1": second, "@" + first: first, "@" + second: second} {
		if got, err := s.Present(t.Context(), f.addr+"/app"+reference); err != nil || !strings.HasSuffix(got.Digest, want) {
			t.Errorf("%s is %s (%v), want %s", reference, got.Digest, err, want)
		}
	}
	if err := s.Retag(f.addr + "/app:v1"); err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]*Store{"same process": s, "after a restart": open(t, s.dir)} {
		if _, err := s.Present(t.Context(), f.addr+"/app:v1"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s: the tag is still known: %v", what, err)
		}
	}
}

func TestLayersAreFetchedOnce(t *testing.T) {
	f, dir := newFar(t), t.TempDir()
	s := open(t, dir)
	base := layers(t, 4)
	extra, err := random.Layer(500, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	other, err := mutate.AppendLayers(base, extra)
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, "base:v1", base)
	f.put(t, "other:v1", other)
	f.blobs.Store(0)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			reference := f.addr + []string{"/base:v1", "/other:v1"}[i%2]
			img, err := s.Pull(t.Context(), runtime.PullRequest{Reference: reference})
			if err != nil {
				t.Error(err)
				return
			}
			checkRoots(t, img)
		})
	}
	group.Wait()
	if got := f.blobs.Load(); got != 5+2 {
		t.Errorf("%d blobs fetched, want 5 layers and 2 configs", got)
	}
	if n := len(folders(t, filepath.Join(dir, "layers"))); n != 5 {
		t.Errorf("%d layers on disk", n)
	}
	if left := folders(t, filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestOneWhoLeavesDoesNotEndAnothersPull(t *testing.T) {
	f := newFar(t)
	s := open(t, t.TempDir())
	f.put(t, "app:v1", layers(t, 1))
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			once.Do(func() { close(arrived) })
			<-release
		}
		return false
	})
	gone, leave := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() {
		_, err := s.Pull(gone, runtime.PullRequest{Reference: f.addr + "/app:v1"})
		results <- err
	}()
	<-arrived
	leave()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() {
		_, err := s.Pull(t.Context(), runtime.PullRequest{Reference: f.addr + "/app:v1"})
		results <- err
	}()
	close(release)
	if err := <-results; err != nil {
		t.Error(err)
	}
}

func TestPrivateImagesNeedTheirOwnSecrets(t *testing.T) {
	f := newFar(t)
	s := open(t, t.TempDir())
	img := layers(t, 1)
	digest := f.put(t, "private:v1", img)
	f.put(t, "public:v1", img)
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); ok || strings.Contains(r.URL.Path, "/public/") {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	request := runtime.PullRequest{Reference: f.addr + "/private@" + digest}
	request.Keychain = keychain{}
	if _, err := s.Pull(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	// The same content is here now; another repository's name for it must still be opened.
	if _, err := s.Present(t.Context(), f.addr+"/public@"+digest); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("known under a name nobody pulled: %v", err)
	}
	other := open(t, t.TempDir())
	if _, err := other.Pull(t.Context(), runtime.PullRequest{Reference: request.Reference}); !errors.Is(err, image.ErrUnauthorized) {
		t.Errorf("without secrets: %v", err)
	}
}

type keychain struct{}

func (keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "me", Password: "secret"}, nil
}

func TestBrokenDownloadsLeaveNothing(t *testing.T) {
	f, dir := newFar(t), t.TempDir()
	s := open(t, dir)
	img := layers(t, 2)
	f.put(t, "app:v1", img)
	content, _ := img.Layers()
	bad, _ := content[1].Digest()
	good, err := content[1].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	real, err := io.ReadAll(good)
	if err != nil {
		t.Fatal(err)
	}
	for what, answer := range map[string]func(w http.ResponseWriter){
		"cut off":  func(w http.ResponseWriter) { _, _ = w.Write(real[:len(real)/2]) },
		"changed":  func(w http.ResponseWriter) { real[len(real)/2] ^= 1; _, _ = w.Write(real); real[len(real)/2] ^= 1 },
		"longer":   func(w http.ResponseWriter) { _, _ = w.Write(append(slices.Clip(real), 0)) },
		"no layer": func(w http.ResponseWriter) { _, _ = w.Write([]byte("hello")) },
	} {
		f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, bad.String()) {
				return false
			}
			answer(w)
			return true
		})
		if _, err := s.Pull(t.Context(), runtime.PullRequest{Reference: f.addr + "/app:v1"}); err == nil {
			t.Errorf("%s: it was accepted", what)
		}
		if _, err := s.Present(t.Context(), f.addr+"/app:v1"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
		if left := folders(t, filepath.Join(dir, "tmp")); len(left) != 0 {
			t.Errorf("%s: left over: %v", what, left)
		}
		if there := folders(t, filepath.Join(dir, "layers")); len(there) > 1 {
			t.Errorf("%s: layers %v", what, there)
		}
	}
	f.intercept(func(http.ResponseWriter, *http.Request) bool { return false })
	pull(t, s, f.addr+"/app:v1")
}

func TestCrashesAreCleanedUp(t *testing.T) {
	f, dir := newFar(t), t.TempDir()
	f.put(t, "whole:v1", layers(t, 1))
	f.put(t, "holed:v1", layers(t, 1))
	s := open(t, dir)
	pull(t, s, f.addr+"/whole:v1")
	holed := pull(t, s, f.addr+"/holed:v1")
	if err := os.RemoveAll(filepath.Dir(holed.RootFS[0])); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"tmp/layer-1/fs/file": "half", "images/torn.json": `{"digest":`, "leases/torn.json": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if left := folders(t, filepath.Join(dir, "tmp")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if _, err := s.Present(t.Context(), f.addr+"/holed:v1"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("an image without its layer: %v", err)
	}
	pull(t, s, f.addr+"/holed:v1")
	if list, err := s.List(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestLeasesKeepLayers(t *testing.T) {
	f, dir := newFar(t), t.TempDir()
	base := layers(t, 2)
	extra, err := random.Layer(500, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	other, err := mutate.AppendLayers(base, extra)
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, "base:v1", base)
	f.put(t, "other:v1", other)
	s := open(t, dir)
	first, second := pull(t, s, f.addr+"/base:v1"), pull(t, s, f.addr+"/other:v1")
	count := func(want int, what string) {
		t.Helper()
		if got := len(folders(t, filepath.Join(dir, "layers"))); got != want {
			t.Errorf("%s: %d layers, want %d", what, got, want)
		}
	}
	if err := s.Lease("pod/1", "sha256:none"); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
	if err := s.Lease("pod/1", second.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), second.Digest); err != nil {
		t.Fatal(err)
	}
	count(3, "removed and leased")
	s = open(t, dir)
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	count(3, "after a restart")
	if diff := cmp.Diff([]string{"pod/1"}, s.Owners()); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := s.Release("pod/1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	count(2, "released")
	checkRoots(t, first)
	if err := s.Remove(t.Context(), strings.SplitN(first.Digest, "@", 2)[1]); err != nil {
		t.Fatal(err)
	}
	count(0, "all removed")
	if _, err := s.Present(t.Context(), f.addr+"/base:v1"); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
}

func TestPullsAndRemovalsTogether(t *testing.T) {
	f := newFar(t)
	s := open(t, t.TempDir())
	f.put(t, "app:v1", layers(t, 3))
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 10 {
				img, err := s.Pull(t.Context(), runtime.PullRequest{Reference: f.addr + "/app:v1"})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Lease(string(rune('a'+i)), img.Digest); err == nil {
					checkRoots(t, img)
				} else if !errors.Is(err, runtime.ErrNotFound) {
					t.Error(err)
				}
				if err := s.Remove(t.Context(), img.Digest); err != nil {
					t.Error(err)
				}
				if err := s.Release(string(rune('a' + i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if err := s.Collect(t.Context()); err != nil {
		t.Error(err)
	}
	if there := folders(t, filepath.Join(s.dir, "layers")); len(there) != 0 {
		t.Errorf("left: %v", there)
	}
}

func BenchmarkPresent(b *testing.B) {
	s := &Store{dir: "/nowhere", images: map[string]*record{}, tags: map[string]string{}, present: map[string]map[string]bool{}}
	const reference = "127.0.0.1:5000/hello@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	s.remember(&record{Digest: reference[21:], References: []string{reference}, Layers: []string{"sha256:a", "sha256:b", "sha256:c"}})
	for b.Loop() {
		if _, err := s.Present(b.Context(), reference); err != nil {
			b.Fatal(err)
		}
	}
}

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// serve opens a registry in a folder and returns it with its address.
func serve(t *testing.T, c Config) (*Registry, string) {
	t.Helper()
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r.Handler())
	t.Cleanup(server.Close)
	return r, strings.TrimPrefix(server.URL, "http://")
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(2048, 3)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func push(t *testing.T, img v1.Image, reference string) {
	t.Helper()
	if err := crane.Push(img, reference, crane.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// pullWhole pulls an image and checks every byte of it.
func pullWhole(t *testing.T, reference string) v1.Image {
	t.Helper()
	img, err := crane.Pull(reference, crane.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestOrdinaryClientPushesAndPulls(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	img := randomImage(t)
	push(t, img, addr+"/team/app:v1")
	want := digestOf(t, img)
	for what, reference := range map[string]string{"by tag": ":v1", "by digest": "@" + want} {
		if got := digestOf(t, pullWhole(t, addr+"/team/app"+reference)); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	index, err := random.Index(1024, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	tag, _ := name.NewTag(addr + "/team/many:v1")
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	back, err := remote.Index(tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(back); err != nil {
		t.Error(err)
	}
	if err := crane.Copy(addr+"/team/app:v1", addr+"/other/copy:v2", crane.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	repos, err := crane.Catalog(addr)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"other/copy", "team/app", "team/many"}, repos); diff != "" {
		t.Errorf("catalog (-want +got):\n%s", diff)
	}
}

func TestTagsMoveAndGo(t *testing.T) {
	var told []string
	_, addr := serve(t, Config{Dir: t.TempDir(), Tagged: func(repo, tag, digest string) { told = append(told, repo+":"+tag+"="+digest) }})
	first, second := randomImage(t), randomImage(t)
	push(t, first, addr+"/app:v1")
	push(t, second, addr+"/app:v1")
	push(t, second, addr+"/app:v2")
	if got, _ := crane.Digest(addr + "/app:v1"); got != digestOf(t, second) {
		t.Errorf("v1 is %s, want the second image", got)
	}
	pullWhole(t, addr+"/app@"+digestOf(t, first))
	if err := crane.Delete(addr + "/app:v1"); err != nil {
		t.Fatal(err)
	}
	if tags, _ := crane.ListTags(addr + "/app"); !cmp.Equal(tags, []string{"v2"}) {
		t.Errorf("tags after deleting v1: %v", tags)
	}
	if err := crane.Delete(addr + "/app@" + digestOf(t, second)); err != nil {
		t.Fatal(err)
	}
	if _, err := crane.Digest(addr + "/app:v2"); err == nil {
		t.Error("v2 is still there after its manifest was deleted")
	}
	want := []string{
		"app:v1=" + digestOf(t, first), "app:v1=" + digestOf(t, second), "app:v2=" + digestOf(t, second), "app:v1=", "app:v2=",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("tags told (-want +got):\n%s", diff)
	}
}

func TestContentSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	_, addr := serve(t, Config{Dir: dir})
	img := randomImage(t)
	push(t, img, addr+"/gcr.io/team/app:v1")
	push(t, randomImage(t), addr+"/gone:v1")
	if err := crane.Delete(addr + "/gone@" + mustDigest(t, addr+"/gone:v1")); err != nil {
		t.Fatal(err)
	}
	location := beginUpload(t, addr, "half/way")
	if code, _, _ := do(t, http.MethodPatch, addr+location, "hello ", nil); code != http.StatusAccepted {
		t.Fatal("first chunk:", code)
	}
	// A crash in the middle of writing leaves temporary files.
	if err := os.WriteFile(filepath.Join(dir, "repositories/gcr.io/team/app/_tags/.new-1"), []byte("sha"), 0o600); err != nil {
		t.Fatal(err)
	}
	// And a broken disk leaves content that is not what it says.
	broken := filepath.Join(dir, "repositories/broken/_manifests")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, strings.Repeat("ab", 32)), []byte(`{"schemaVersion":2}`), 0o600); err != nil {
		t.Fatal(err)
	}

	_, again := serve(t, Config{Dir: dir})
	if got := digestOf(t, pullWhole(t, again+"/gcr.io/team/app:v1")); got != digestOf(t, img) {
		t.Errorf("after restart: %s, want %s", got, digestOf(t, img))
	}
	repos, _ := crane.Catalog(again)
	if diff := cmp.Diff([]string{"gcr.io/team/app"}, repos); diff != "" {
		t.Errorf("catalog after restart (-want +got):\n%s", diff)
	}
	whole := hashOf([]byte("hello world")).String()
	code, _, body := do(t, http.MethodPut, again+location+"?digest="+whole, "world", http.Header{"Content-Range": {"6-10"}})
	if code != http.StatusCreated {
		t.Fatalf("resumed upload: %d %s", code, body)
	}
	if _, _, body := do(t, http.MethodGet, again+"/v2/half/way/blobs/"+whole, "", nil); body != "hello world" {
		t.Errorf("resumed blob: %q", body)
	}
}

func TestCollectRemovesOnlyWhatNobodyNeeds(t *testing.T) {
	dir := t.TempDir()
	r, addr := serve(t, Config{Dir: dir})
	kept, gone := randomImage(t), randomImage(t)
	push(t, kept, addr+"/app:v1")
	push(t, gone, addr+"/app:v2")
	push(t, mutate.Annotations(gone, map[string]string{"again": "yes"}).(v1.Image), addr+"/app:v2")
	later := time.Now().Add(time.Hour)

	out, err := r.collect(t.Context(), false, later)
	if err != nil || out.Blobs != 0 {
		t.Errorf("all manifests are there, yet %+v went (%v)", out, err)
	}
	if err := crane.Delete(addr + "/app@" + mustDigest(t, addr+"/app:v2")); err != nil {
		t.Fatal(err)
	}
	if out, err = r.Collect(t.Context(), Collection{Untagged: true}); err != nil || out.Manifests != 1 || out.Blobs != 0 {
		t.Errorf("fresh blobs must stay: %+v, %v", out, err)
	}
	if out, err = r.collect(t.Context(), false, later); err != nil || out.Blobs != 4 || out.Bytes < 3*2048 {
		t.Errorf("3 layers and a config must go: %+v, %v", out, err)
	}
	pullWhole(t, addr+"/app:v1")
	if _, err := crane.Pull(addr + "/app@" + digestOf(t, gone)); err == nil {
		t.Error("the untagged image is still there")
	}
}

func TestPushesSurviveCollections(t *testing.T) {
	r, addr := serve(t, Config{Dir: t.TempDir()})
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := r.Collect(context.WithoutCancel(ctx), Collection{Untagged: true}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 10 {
		push(t, randomImage(t), addr+"/app:latest")
		pullWhole(t, addr+"/app:latest")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeStopsWithItsContext(t *testing.T) {
	r, err := New(Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, ln) }()
	if code, _, _ := do(t, http.MethodGet, ln.Addr().String()+"/v2/", "", nil); code != http.StatusOK {
		t.Error("ping:", code)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func mustDigest(t *testing.T, reference string) string {
	t.Helper()
	digest, err := crane.Digest(reference)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// do sends one request to host, port and path and returns status, header and body.
func do(t *testing.T, method, url, body string, header http.Header) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(content)
}

func beginUpload(t *testing.T, addr, repo string) string {
	t.Helper()
	code, header, body := do(t, http.MethodPost, addr+"/v2/"+repo+"/blobs/uploads/", "", nil)
	if code != http.StatusAccepted {
		t.Fatalf("beginning upload: %d %s", code, body)
	}
	return header.Get("Location")
}

func errorCode(body string) string {
	var answer struct{ Errors []struct{ Code string } }
	if json.Unmarshal([]byte(body), &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	return answer.Errors[0].Code
}

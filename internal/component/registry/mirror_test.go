package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"ebb.dev/ebb/internal/platform/image"
)

// platformed is a random image for a platform.
func platformed(t *testing.T, architecture string) v1.Image {
	t.Helper()
	img := randomImage(t)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	out, err := mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// layoutTar packs an OCI layout; drop says which blobs to leave out.
func layoutTar(t *testing.T, add func(layout.Path), drop ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	add(path)
	for _, hex := range drop {
		if err := os.Remove(filepath.Join(dir, "blobs/sha256", hex)); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func annotated(key, value string) layout.Option {
	return layout.WithAnnotations(map[string]string{key: value})
}

// savedTar is what old dockers save: layers not compressed, one of them a link to its equal.
func savedTar(t *testing.T, img v1.Image, tags ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h *tar.Header, content []byte) {
		h.Size, h.Mode = int64(len(content)), 0o644
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	entry := map[string]any{"Config": "config.json", "RepoTags": tags}
	var names []string
	layers, _ := img.Layers()
	for i, layer := range layers {
		plain, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		name := string(rune('a'+i)) + "/layer.tar"
		if i == 0 {
			add(&tar.Header{Name: "shared/layer.tar", Typeflag: tar.TypeReg}, content)
			add(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "../shared/layer.tar"}, nil)
		} else {
			add(&tar.Header{Name: name, Typeflag: tar.TypeReg}, content)
		}
		names = append(names, name)
	}
	entry["Layers"] = names
	manifest, _ := json.Marshal([]any{entry})
	add(&tar.Header{Name: "config.json", Typeflag: tar.TypeReg}, config)
	add(&tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg}, manifest)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func configID(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// checkLayers reads all layers and compares them with what the config calls them.
func checkLayers(t *testing.T, img v1.Image) {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := v1.SHA256(content); err != nil || got != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d is %s, want %s (%v)", i, got, config.RootFS.DiffIDs[i], err)
		}
		content.Close()
	}
}

func TestLoadedImagesAreServedUnderTheirNames(t *testing.T) {
	img := platformed(t, runtime.GOARCH)
	const full = "gcr.io/knative-samples/helloworld-go:latest"
	tag, _ := name.NewTag(full)
	var written bytes.Buffer
	if err := tarball.Write(tag, img, &written); err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}},
		mutate.IndexAddendum{Add: platformed(t, "s390x"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}})
	other, _ := index.IndexManifest()
	cases := map[string]struct {
		archive []byte
		as      string
		want    string // how pods say it
		digest  string // where the archive has it
	}{
		"docker save":               {savedTar(t, img, full), "", full, ""},
		"docker save, zipped":       {zipped(t, savedTar(t, img, full)), "", full, ""},
		"docker save, another name": {savedTar(t, img), "docker.io/library/nginx", "nginx", ""},
		"ggcr's":                    {written.Bytes(), "", full, ""},
		"layout by containerd": {
			layoutTar(t, func(p layout.Path) { _ = p.AppendImage(img, annotated("io.containerd.image.name", full)) }), "", full, digestOf(t, img),
		},
		"layout by podman": {
			layoutTar(t, func(p layout.Path) { _ = p.AppendImage(img, annotated("org.opencontainers.image.ref.name", full)) }), "", full, digestOf(t, img),
		},
		"layout without a name": {
			layoutTar(t, func(p layout.Path) { _ = p.AppendImage(img) }), "ghcr.io/x/y@" + digestOf(t, img), "ghcr.io/x/y@" + digestOf(t, img), digestOf(t, img),
		},
		"layout of all platforms": {
			layoutTar(t, func(p layout.Path) { _ = p.AppendIndex(index, annotated("io.containerd.image.name", full)) }), "", full, digestOf(t, index),
		},
		"layout of one platform of several": {
			layoutTar(t, func(p layout.Path) { _ = p.AppendIndex(index, annotated("io.containerd.image.name", full)) }, other.Manifests[1].Digest.Hex),
			"", full, digestOf(t, index),
		},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			_, addr := serve(t, Config{Dir: t.TempDir()})
			mirror := image.Mirror{Address: addr}
			loaded, err := mirror.Load(t.Context(), bytes.NewReader(c.archive), c.as)
			if err != nil || len(loaded) != 1 {
				t.Fatalf("%v, %v", loaded, err)
			}
			source := image.Open(addr, slog.New(slog.NewTextHandler(t.Output(), nil)))
			got, digest, err := source.Image(t.Context(), c.want, nil)
			if err != nil {
				t.Fatal(err)
			}
			if configID(t, got) != configID(t, img) {
				t.Error("the image changed")
			}
			checkLayers(t, got)
			if loaded[0].Digest != digest.DigestStr() || c.digest != "" && c.digest != digest.DigestStr() {
				t.Errorf("loaded as %s, served as %s, was %s", loaded[0].Digest, digest.DigestStr(), c.digest)
			}
			if _, err := source.Digest(t.Context(), c.want, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestArchivesThatCannotBeLoaded(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	mirror := image.Mirror{Address: addr}
	img := platformed(t, runtime.GOARCH)
	layers, _ := img.Layers()
	layer, _ := layers[0].Digest()
	foreign := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: platformed(t, "s390x"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}})
	two := savedTar(t, img, "a:1", "b:2")
	cases := map[string]struct {
		archive []byte
		as      string
		want    error
	}{
		"nothing":              {nil, "", image.ErrArchive},
		"no tar":               {[]byte(strings.Repeat("hello", 500)), "", image.ErrArchive},
		"cut off":              {two[:len(two)-3000], "", image.ErrArchive},
		"a tar of other files": {layoutTar(t, func(p layout.Path) { _ = os.Remove(filepath.Join(string(p), "index.json")) }), "x", image.ErrArchive},
		"no name":              {savedTar(t, img), "", image.ErrReference},
		"a name that is none":  {savedTar(t, img), "Not A Name", image.ErrReference},
		"another digest":       {savedTar(t, img), "ghcr.io/x/y@" + someDigest, image.ErrDigest},
		"a layer missing":      {layoutTar(t, func(p layout.Path) { _ = p.AppendImage(img) }, layer.Hex), "x", image.ErrArchive},
		"another platform":     {layoutTar(t, func(p layout.Path) { _ = p.AppendIndex(foreign) }), "x", image.ErrPlatform},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			if _, err := mirror.Load(t.Context(), bytes.NewReader(c.archive), c.as); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestListRemoveCollect(t *testing.T) {
	_, addr := serve(t, Config{Dir: t.TempDir()})
	mirror := image.Mirror{Address: addr}
	img := platformed(t, runtime.GOARCH)
	push(t, img, addr+"/hello:latest")
	loaded, err := mirror.Load(t.Context(), bytes.NewReader(savedTar(t, img, "nginx:1", "quay.io/x/y:v2")), "")
	if err != nil || len(loaded) != 2 || loaded[0].Reference != "docker.io/library/nginx:1" {
		t.Fatal(loaded, err)
	}
	listed, err := mirror.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range listed {
		names = append(names, l.Reference)
		if l.SizeBytes < 2048 || !slices.Equal(l.Platforms, []string{"linux/" + runtime.GOARCH}) || l.Digest == "" {
			t.Errorf("%+v", l)
		}
	}
	if diff := cmp.Diff([]string{addr + "/hello:latest", "docker.io/library/nginx:1", "quay.io/x/y:v2"}, names); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if err := mirror.Remove(t.Context(), "nginx:1"); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Remove(t.Context(), "nginx:1"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("removing it again: %v", err)
	}
	if out, err := mirror.Collect(t.Context(), true); err != nil || out.Manifests != 1 {
		t.Errorf("collected %+v, %v", out, err)
	}
	if err := mirror.Remove(t.Context(), addr+"/hello:latest"); err != nil {
		t.Fatal(err)
	}
	if listed, err = mirror.List(t.Context()); err != nil || len(listed) != 1 {
		t.Errorf("left: %v, %v", listed, err)
	}
}

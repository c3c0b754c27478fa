package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// ErrArchive means the file is not an image archive.
var ErrArchive = errors.New("not an image archive")

const (
	// maxDocument bounds manifests and configs in an archive.
	maxDocument = 16 << 20
	// maxMembers bounds the files in an archive.
	maxMembers = 100_000
)

// archive is an image archive on disk, by docker save, podman save, skopeo, buildx or ctr: one in the
// OCI layout, or the older form with manifest.json, or both in one.
type archive struct {
	file    *os.File
	members map[string]member // by clean path
	links   map[string]string // symbolic links, by which older dockers keep equal layers once
}

type member struct{ offset, size int64 }

// spool copies an archive to a temporary file, unpacked where it is compressed as a whole, because
// its parts are needed in another order than they come. The caller removes the file.
func spool(from io.Reader) (*os.File, error) {
	buffered := bufio.NewReaderSize(from, 64<<10)
	head, err := buffered.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("%w: it is empty or cannot be read: %w", ErrArchive, err)
	}
	plain := io.Reader(buffered)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		if plain, err = gzip.NewReader(buffered); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		decoder, err := zstd.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		defer decoder.Close()
		plain = decoder
	}
	out, err := os.CreateTemp("", "ebb-image-*.tar")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(out, plain); err != nil { //nolint:gosec // the user names the file, and it goes to a disk that may fill
		return nil, errors.Join(fmt.Errorf("reading archive: %w", err), out.Close(), os.Remove(out.Name()))
	}
	return out, nil
}

// openArchive notes where the parts of an archive lie.
func openArchive(f *os.File) (*archive, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	a := &archive{file: f, members: map[string]member{}, links: map[string]string{}}
	for reader := tar.NewReader(f); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		if len(a.members)+len(a.links) >= maxMembers {
			return nil, fmt.Errorf("%w: more than %d files", ErrArchive, maxMembers)
		}
		name := path.Clean("/" + h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader takes whole headers and nothing ahead, so the file stands at the content.
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.members[name] = member{offset, h.Size}
		case tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname) //nolint:gosec // a name in the archive, never one on disk
		case tar.TypeLink:
			a.links[name] = path.Clean("/" + h.Linkname)
		}
	}
}

// find returns a part, following one link.
func (a *archive) find(name string) (*io.SectionReader, bool) {
	name = path.Clean("/" + name)
	m, ok := a.members[name]
	if !ok {
		if m, ok = a.members[a.links[name]]; !ok {
			return nil, false
		}
	}
	return io.NewSectionReader(a.file, m.offset, m.size), true
}

func (a *archive) blob(h v1.Hash) (*io.SectionReader, bool) {
	return a.find("blobs/" + h.Algorithm + "/" + h.Hex)
}

// document reads a part that is JSON.
func (a *archive) document(part *io.SectionReader) ([]byte, error) {
	if part.Size() > maxDocument {
		return nil, fmt.Errorf("%w: a document of %d bytes", ErrArchive, part.Size())
	}
	return io.ReadAll(part)
}

// named is one image in an archive, with what it is called there.
type named struct {
	names []string // as written; may be none
	desc  v1.Descriptor
	image v1.Image // of the older form; nil in the OCI layout
}

// contents lists the images in the archive. The OCI layout is preferred, since it has the manifests
// and so keeps the digests.
func (a *archive) contents() ([]named, error) {
	if index, ok := a.find("index.json"); ok {
		if out, err := a.layout(index); err != nil || len(out) > 0 {
			return out, err
		}
	}
	if manifest, ok := a.find("manifest.json"); ok {
		return a.saved(manifest)
	}
	return nil, fmt.Errorf("%w: it has neither index.json nor manifest.json", ErrArchive)
}

func (a *archive) layout(part *io.SectionReader) ([]named, error) {
	content, err := a.document(part)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("%w: index.json: %w", ErrArchive, err)
	}
	tags, err := a.tagsByConfig()
	if err != nil {
		return nil, err
	}
	byDigest := map[v1.Hash]int{}
	var out []named
	for _, desc := range index.Manifests {
		at, ok := byDigest[desc.Digest]
		if !ok {
			at = len(out)
			byDigest[desc.Digest] = at
			out = append(out, named{desc: desc})
		}
		if text, ok := layoutName(desc.Annotations); ok {
			out[at].names = append(out[at].names, text)
		}
	}
	for i := range out {
		if len(out[i].names) == 0 {
			out[i].names = tags[a.configOf(out[i].desc)]
		}
	}
	return out, nil
}

// layoutName reads an image's name from its annotations. Tools disagree: containerd writes all of it
// in its own annotation and only the tag in the standard one, podman all of it in the standard one.
func layoutName(annotations map[string]string) (string, bool) {
	if text := annotations["io.containerd.image.name"]; text != "" {
		return text, true
	}
	text := annotations["org.opencontainers.image.ref.name"]
	return text, strings.ContainsAny(text, ":/")
}

// configOf names an image's config, "" when the manifest is not one of a single image.
func (a *archive) configOf(desc v1.Descriptor) string {
	part, ok := a.blob(desc.Digest)
	if !ok {
		return ""
	}
	content, err := a.document(part)
	if err != nil {
		return ""
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(content))
	if err != nil {
		return ""
	}
	return manifest.Config.Digest.Hex
}

// savedImage is an entry of manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archive) savedImages(part *io.SectionReader) ([]savedImage, error) {
	content, err := a.document(part)
	if err != nil {
		return nil, err
	}
	var out []savedImage
	if err := json.Unmarshal(content, &out); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrArchive, err)
	}
	return out, nil
}

// tagsByConfig reads names from manifest.json, for archives that have both forms.
func (a *archive) tagsByConfig() (map[string][]string, error) {
	out := map[string][]string{}
	part, ok := a.find("manifest.json")
	if !ok {
		return out, nil
	}
	images, err := a.savedImages(part)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		out[path.Base(strings.TrimSuffix(img.Config, ".json"))] = img.RepoTags
	}
	return out, nil
}

// saved reads the older form, which has no manifest: one is made, the layers as they are.
func (a *archive) saved(part *io.SectionReader) ([]named, error) {
	images, err := a.savedImages(part)
	if err != nil {
		return nil, err
	}
	out := make([]named, 0, len(images))
	for _, entry := range images {
		img, desc, err := a.savedImage(entry)
		if err != nil {
			return nil, err
		}
		out = append(out, named{names: entry.RepoTags, desc: desc, image: img})
	}
	return out, nil
}

func (a *archive) savedImage(entry savedImage) (v1.Image, v1.Descriptor, error) {
	config, ok := a.find(entry.Config)
	if !ok {
		return nil, v1.Descriptor{}, fmt.Errorf("%w: it lacks %s", ErrArchive, entry.Config)
	}
	content, err := a.document(config)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
		Config: v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(content)), Digest: sum(content)},
	}
	parts := map[v1.Hash]*io.SectionReader{}
	for _, name := range entry.Layers {
		layer, ok := a.find(name)
		if !ok {
			return nil, v1.Descriptor{}, fmt.Errorf("%w: it lacks %s", ErrArchive, name)
		}
		desc, err := describeLayer(layer)
		if err != nil {
			return nil, v1.Descriptor{}, err
		}
		parts[desc.Digest] = layer
		manifest.Layers = append(manifest.Layers, desc)
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	img, err := compressedImage(raw, content, func(h v1.Hash) (*io.SectionReader, bool) {
		part, ok := parts[h]
		return part, ok
	})
	return img, v1.Descriptor{MediaType: manifest.MediaType, Size: int64(len(raw)), Digest: sum(raw)}, err
}

// describeLayer takes a layer as it lies in the archive, mostly not compressed.
func describeLayer(part *io.SectionReader) (v1.Descriptor, error) {
	digest := sha256.New()
	size, err := io.Copy(digest, part)
	if err != nil {
		return v1.Descriptor{}, err
	}
	head := make([]byte, 2)
	if _, err := part.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return v1.Descriptor{}, err
	}
	desc := v1.Descriptor{MediaType: types.DockerUncompressedLayer, Size: size}
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		desc.MediaType = types.DockerLayer
	}
	desc.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest.Sum(nil))}
	return desc, nil
}

func sum(content []byte) v1.Hash {
	digest := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest[:])}
}

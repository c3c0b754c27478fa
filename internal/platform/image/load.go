package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrDigest means an image is not the one its reference's digest names.
var ErrDigest = errors.New("digest does not match")

// Loaded is one image that Load brought in.
type Loaded struct {
	Reference string // as pods may say it
	Digest    string // sha256:…
}

// Load reads an image archive, as docker save and other tools write it, and keeps its images in the
// mirror under the names they have in it. With as, which names a single image, it is kept under that
// reference instead; any registry's will do, and from then on the mirror's image is what the
// reference stands for on this machine.
func (m Mirror) Load(ctx context.Context, from io.Reader, as string) ([]Loaded, error) {
	f, err := spool(from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
	return m.LoadFile(ctx, f, as)
}

// LoadFile is Load for a file that is not compressed as a whole; it spares the copy.
func (m Mirror) LoadFile(ctx context.Context, f *os.File, as string) ([]Loaded, error) {
	a, err := openArchive(f)
	if err != nil {
		return nil, err
	}
	images, err := a.contents()
	if err != nil {
		return nil, err
	}
	if as != "" {
		if len(images) != 1 {
			return nil, fmt.Errorf("%w: one name for %d images", ErrReference, len(images))
		}
		images[0].names = []string{as}
	}
	var out []Loaded
	for _, img := range images {
		if len(img.names) == 0 {
			return out, fmt.Errorf("%w: image %s has no name in the archive; give it one", ErrReference, img.desc.Digest)
		}
		for _, text := range img.names {
			loaded, err := m.load(ctx, a, img, text)
			if err != nil {
				return out, fmt.Errorf("loading %s: %w", text, err)
			}
			out = append(out, loaded)
		}
	}
	return out, nil
}

func (m Mirror) load(ctx context.Context, a *archive, img named, text string) (Loaded, error) {
	ref, err := Parse(text)
	if err != nil {
		return Loaded{}, err
	}
	if digest, ok := ref.(name.Digest); ok && digest.DigestStr() != img.desc.Digest.String() {
		return Loaded{}, fmt.Errorf("%w: the archive's image is %s", ErrDigest, img.desc.Digest)
	}
	target := m.target(ref)
	options := m.options(ctx)
	if img.image != nil {
		err = remote.Write(target, img.image, options...)
	} else {
		err = a.send(target, img.desc, options)
	}
	if err != nil {
		return Loaded{}, classify(err)
	}
	return Loaded{Reference: m.readable(ref), Digest: img.desc.Digest.String()}, nil
}

// send pushes what a descriptor stands for, by way of indexes down to images. An index's parts that
// the archive leaves out stay out, as long as one for this machine is there.
func (a *archive) send(target name.Reference, desc v1.Descriptor, options []remote.Option) error {
	part, ok := a.blob(desc.Digest)
	if !ok {
		return fmt.Errorf("%w: it lacks %s", ErrArchive, desc.Digest)
	}
	raw, err := a.document(part)
	if err != nil {
		return err
	}
	if sum(raw) != desc.Digest {
		return fmt.Errorf("%w: a manifest of the archive is %s, called %s", ErrDigest, sum(raw), desc.Digest)
	}
	if !desc.MediaType.IsIndex() {
		return a.sendImage(target, raw, options)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("%w: index: %w", ErrArchive, err)
	}
	fits := false
	for _, child := range index.Manifests {
		if _, ok := a.blob(child.Digest); !ok {
			continue
		}
		fits = fits || child.MediaType.IsIndex() || match(child.Platform, Platform()) > 0
		if err := a.send(target.Context().Digest(child.Digest.String()), child, options); err != nil {
			return err
		}
	}
	if !fits {
		return fmt.Errorf("%w: the archive has none for %s", ErrPlatform, Platform())
	}
	return remote.Put(target, rawManifest{raw, desc.MediaType}, options...)
}

func (a *archive) sendImage(target name.Reference, raw []byte, options []remote.Option) error {
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrArchive, err)
	}
	part, ok := a.blob(manifest.Config.Digest)
	if !ok {
		return fmt.Errorf("%w: it lacks config %s", ErrArchive, manifest.Config.Digest)
	}
	config, err := a.document(part)
	if err != nil {
		return err
	}
	if kind := manifest.Config.MediaType; kind == types.OCIConfigJSON || kind == types.DockerConfigJSON {
		img, err := compressedImage(raw, config, a.blob)
		if err != nil {
			return err
		}
		return remote.Write(target, img, options...)
	}
	// Attestations and the like: blobs that are no layers of a file system.
	return a.sendArtifact(target, manifest, raw, options)
}

// sendArtifact pushes a manifest whose blobs are not an image's.
func (a *archive) sendArtifact(target name.Reference, manifest *v1.Manifest, raw []byte, options []remote.Option) error {
	for _, desc := range append(manifest.Layers, manifest.Config) {
		part, ok := a.blob(desc.Digest)
		if !ok {
			return fmt.Errorf("%w: it lacks %s", ErrArchive, desc.Digest)
		}
		if err := remote.WriteLayer(target.Context(), blobLayer{storedLayer{desc, part}}, options...); err != nil {
			return err
		}
	}
	kind := manifest.MediaType
	if kind == "" {
		kind = types.OCIManifestSchema1
	}
	return remote.Put(target, rawManifest{raw, kind}, options...)
}

// blobLayer is a blob to upload that nobody will unpack.
type blobLayer struct{ storedLayer }

func (l blobLayer) DiffID() (v1.Hash, error)             { return l.desc.Digest, nil }
func (l blobLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }

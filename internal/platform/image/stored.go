package image

import (
	"bytes"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// stored is an image whose blobs lie in a file. Its methods are those partial.CompressedToImage asks
// for.
type stored struct {
	manifest *v1.Manifest
	raw      []byte // the manifest
	config   []byte
	blob     func(v1.Hash) (*io.SectionReader, bool)
}

// compressedImage makes an image of a manifest, a config and a way to find layers.
func compressedImage(raw, config []byte, blob func(v1.Hash) (*io.SectionReader, bool)) (v1.Image, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrArchive, err)
	}
	return partial.CompressedToImage(&stored{manifest: manifest, raw: raw, config: config, blob: blob})
}

func (s *stored) RawManifest() ([]byte, error)   { return s.raw, nil }
func (s *stored) RawConfigFile() ([]byte, error) { return s.config, nil }

func (s *stored) MediaType() (types.MediaType, error) {
	if s.manifest.MediaType == "" {
		return types.OCIManifestSchema1, nil
	}
	return s.manifest.MediaType, nil
}

// LayerByDigest finds a layer; a config is one too where pushing is concerned.
func (s *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if h == s.manifest.Config.Digest {
		return partial.ConfigLayer(s)
	}
	for _, desc := range s.manifest.Layers {
		if desc.Digest != h {
			continue
		}
		part, ok := s.blob(h)
		if !ok && desc.MediaType.IsDistributable() {
			return nil, fmt.Errorf("%w: it lacks layer %s", ErrArchive, h)
		}
		return storedLayer{desc, part}, nil
	}
	return nil, fmt.Errorf("%w: no layer %s in the manifest", ErrArchive, h)
}

type storedLayer struct {
	desc v1.Descriptor
	part *io.SectionReader
}

func (l storedLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l storedLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l storedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l storedLayer) Descriptor() (*v1.Descriptor, error) { return &l.desc, nil }
func (l storedLayer) Compressed() (io.ReadCloser, error) {
	// A reader of its own each time: several uploads may read at once.
	return io.NopCloser(io.NewSectionReader(l.part, 0, l.part.Size())), nil
}

// rawManifest is a manifest to be put as it is.
type rawManifest struct {
	raw  []byte
	kind types.MediaType
}

func (m rawManifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.kind, nil }

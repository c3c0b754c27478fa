package image

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Listed is one tag in the mirror.
type Listed struct {
	Reference string   // as pods may say it
	Digest    string   // sha256:…
	SizeBytes int64    // compressed, of all platforms that are here
	Platforms []string // "linux/amd64"; of images that say so
}

// List tells all tags the mirror has, sorted by reference.
func (m Mirror) List(ctx context.Context) ([]Listed, error) {
	registry, err := m.registry()
	if err != nil {
		return nil, err
	}
	options := m.options(ctx)
	repositories, err := remote.Catalog(ctx, registry, options...)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	out := []Listed{}
	for _, repository := range repositories {
		tags, err := remote.List(registry.Repo(repository), options...)
		if err != nil {
			return nil, fmt.Errorf("listing images of %s: %w", repository, classify(err))
		}
		for _, tag := range tags {
			listed, err := m.inspect(registry.Repo(repository).Tag(tag), options)
			if err != nil {
				return nil, fmt.Errorf("listing %s:%s: %w", repository, tag, classify(err))
			}
			out = append(out, listed)
		}
	}
	slices.SortFunc(out, func(a, b Listed) int { return strings.Compare(a.Reference, b.Reference) })
	return out, nil
}

func (m Mirror) inspect(tag name.Tag, options []remote.Option) (Listed, error) {
	desc, err := remote.Get(tag, options...)
	if err != nil {
		return Listed{}, err
	}
	out := Listed{Reference: m.References(tag.RepositoryStr(), tag.TagStr())[0], Digest: desc.Digest.String()}
	if !desc.MediaType.IsIndex() {
		return out, out.add(desc.Image())
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return Listed{}, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return Listed{}, err
	}
	for _, child := range manifest.Manifests {
		if !isImage(child.MediaType) || child.Platform != nil && child.Platform.OS == "unknown" {
			continue
		}
		if _, err := remote.Head(tag.Context().Digest(child.Digest.String()), options...); err != nil {
			continue // not loaded
		}
		if err := out.add(index.Image(child.Digest)); err != nil {
			return Listed{}, err
		}
	}
	return out, nil
}

// add counts one platform's image in.
func (l *Listed) add(img v1.Image, err error) error {
	if err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	l.SizeBytes += manifest.Config.Size
	for _, layer := range manifest.Layers {
		l.SizeBytes += layer.Size
	}
	if !manifest.Config.MediaType.IsConfig() {
		return nil
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if platform := config.Platform(); platform != nil {
		l.Platforms = append(l.Platforms, platform.String())
	}
	return nil
}

// Remove forgets a reference: a tag, or, by digest, the manifest with all its tags. Content goes at
// the next Collect.
func (m Mirror) Remove(ctx context.Context, reference string) error {
	ref, err := Parse(reference)
	if err != nil {
		return err
	}
	if err := remote.Delete(m.target(ref), m.options(ctx)...); err != nil {
		return fmt.Errorf("removing %s: %w", reference, classify(err))
	}
	return nil
}

// Collected is what a collection removed.
type Collected struct {
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
}

// Collect frees the space of content that no manifest needs and, with untagged, of manifests that
// no tag leads to.
func (m Mirror) Collect(ctx context.Context, untagged bool) (Collected, error) {
	url := fmt.Sprintf("http://%s/collect?untagged=%t", m.Address, untagged)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return Collected{}, err
	}
	resp, err := mirrorClient.Do(req)
	if err != nil {
		return Collected{}, fmt.Errorf("collecting unused images: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return Collected{}, fmt.Errorf("collecting unused images: %s", resp.Status)
	}
	var out Collected
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return Collected{}, fmt.Errorf("collecting unused images: %w", err)
	}
	return out, nil
}

func (m Mirror) options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithUserAgent(userAgent), remote.WithTransport(mirrorClient.Transport)}
}

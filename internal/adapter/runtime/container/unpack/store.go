// Package unpack keeps images unpacked on disk, ready for overlayfs, and pulls what is missing.
//
// A layer is unpacked once, whichever images share it, and an image whose layers are here starts
// without any I/O: all that is known about images is in memory. The folder:
//
//	layers/<diff id>/fs       a layer as overlayfs wants it
//	layers/<diff id>/size     the bytes in it
//	images/<digest>.json      one image: its layers and what its config says
//	leases/<owner>.json       images that must stay, by who needs them
//	tmp/                      work in progress, emptied at start
//
// A layer appears by a rename after its files are synced, an image after its layers, so whatever a
// crash leaves is whole.
package unpack

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/platform/image"
)

// parallel is how many layers are fetched and unpacked at the same time.
const parallel = 4

// Store is a folder of unpacked images. It implements runtime.Images, and nobody else may write to
// its folder. All methods are safe for concurrent use.
type Store struct {
	dir    string
	source *image.Source
	log    *slog.Logger

	pulls singleflight.Group // by reference
	slots *semaphore.Weighted

	// change is held while files of images and leases change, so that disk and memory go through
	// the same steps; it comes before mu, which is never held across I/O but renames of layers.
	change  sync.Mutex
	mu      sync.RWMutex               // guards the maps
	images  map[string]*record         // by digest
	tags    map[string]string          // canonical reference with a tag → digest
	leases  map[string]lease           // by owner
	pinned  map[string]int             // diff ID → pulls in progress that count on it
	busy    map[string]chan struct{}   // diff ID → closed when whoever unpacks it is done
	present map[string]map[string]bool // digest → repositories it was pulled from
}

var _ runtime.Images = (*Store)(nil)

// New opens the store in a folder, making it when it is not there.
func New(dir string, source *image.Source, log *slog.Logger) (*Store, error) {
	s := &Store{
		dir: dir, source: source, log: log, slots: semaphore.NewWeighted(parallel),
		images: map[string]*record{}, tags: map[string]string{}, leases: map[string]lease{},
		pinned: map[string]int{}, busy: map[string]chan struct{}{}, present: map[string]map[string]bool{},
	}
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	for _, folder := range []string{"layers", "images", "leases", "tmp"} {
		if err := os.MkdirAll(s.path(folder), 0o700); err != nil {
			return nil, fmt.Errorf("opening image store: %w", err)
		}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	return s, nil
}

// Present tells an image that is already unpacked, or runtime.ErrNotFound. It asks nobody and does
// no I/O.
func (s *Store) Present(_ context.Context, reference string) (runtime.Image, error) {
	ref, err := image.Parse(reference)
	if err != nil {
		return runtime.Image{}, err
	}
	if found, ok := s.lookup(ref); ok {
		return s.describe(found, reference, ref), nil
	}
	return runtime.Image{}, fmt.Errorf("image %s: %w", reference, runtime.ErrNotFound)
}

// lookup finds what a reference stands for here. An image known by digest counts for a repository
// only once it was found there: a pod must not run a private image because it knows its digest.
func (s *Store) lookup(ref name.Reference) (*record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	digest, tagged := s.tags[ref.Name()]
	if !tagged {
		d, ok := ref.(name.Digest)
		if !ok || !s.present[d.DigestStr()][d.Context().Name()] {
			return nil, false
		}
		digest = d.DigestStr()
	}
	found, ok := s.images[digest]
	return found, ok
}

// Retag forgets which image a tag stands for, so that the next pod that uses it pulls again. It is
// for whoever knows that the tag has moved, as when an image was loaded into the local registry.
func (s *Store) Retag(reference string) error {
	ref, err := image.Parse(reference)
	if err != nil {
		return err
	}
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.RLock()
	holder, ok := s.images[s.tags[ref.Name()]]
	s.mu.RUnlock()
	if !ok {
		return nil
	}
	if err := s.replace(holder.without(ref.Name())); err != nil {
		return fmt.Errorf("forgetting tag %s: %w", reference, err)
	}
	return nil
}

// List tells all unpacked images, each once, by the first reference that led to it.
func (s *Store) List(context.Context) ([]runtime.Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]runtime.Image, 0, len(s.images))
	for _, found := range s.images {
		reference := found.References[0]
		ref, err := image.Parse(reference)
		if err != nil {
			continue
		}
		out = append(out, s.describe(found, reference, ref))
	}
	slices.SortFunc(out, func(a, b runtime.Image) int { return strings.Compare(a.Reference, b.Reference) })
	return out, nil
}

// Remove forgets an image, named "sha256:…" or "repository@sha256:…", and deletes the layers that no
// other image and no lease needs. One that is not here is no error.
func (s *Store) Remove(ctx context.Context, digest string) error {
	if _, after, ok := strings.Cut(digest, "@"); ok {
		digest = after
	}
	if err := s.remove(digest); err != nil {
		return fmt.Errorf("removing image %s: %w", digest, err)
	}
	return s.Collect(ctx)
}

func (s *Store) remove(digest string) error {
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.RLock()
	found, ok := s.images[digest]
	s.mu.RUnlock()
	if !ok {
		return nil
	}
	if err := ignoreAbsent(os.Remove(s.imagePath(digest))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(found)
	return nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *Store) layerPath(diffID string) string {
	return s.path("layers", strings.TrimPrefix(diffID, "sha256:"))
}

func (s *Store) imagePath(digest string) string {
	return s.path("images", strings.TrimPrefix(digest, "sha256:")+".json")
}

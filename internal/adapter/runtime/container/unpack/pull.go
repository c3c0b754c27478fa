package unpack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/unpack/layer"
	"ebb.dev/ebb/internal/platform/image"
)

const (
	// pullTimeout bounds a pull that nobody waits for any more.
	pullTimeout = 30 * time.Minute
	// maxLayers is what overlayfs takes in one mount, less the writable one.
	maxLayers = 127
	// maxEntries bounds the names in one layer.
	maxEntries = 4_000_000
	// roomyBytes is what any layer may unpack to; beyond, expansion times its compressed size, which
	// no honest layer reaches and a bomb soon does.
	roomyBytes = 1 << 30
	expansion  = 200
)

// Pull makes an image ready to run. A digest that is here already costs no I/O; a tag is asked for
// anew, and only the layers that are missing are fetched. Callers who want the same image at the
// same time share one pull, which goes on when some of them leave.
func (s *Store) Pull(ctx context.Context, r runtime.PullRequest) (runtime.Image, error) {
	ref, err := image.Parse(r.Reference)
	if err != nil {
		return runtime.Image{}, err
	}
	if _, fixed := ref.(name.Digest); fixed {
		if found, ok := s.lookup(ref); ok {
			return s.describe(found, r.Reference, ref), nil
		}
	}
	digest, err := s.source.Digest(ctx, r.Reference, r.Keychain)
	if err != nil {
		return runtime.Image{}, err
	}
	if found, ok := s.lookup(digest); ok {
		kept, err := s.tag(found, ref)
		if err != nil {
			return runtime.Image{}, fmt.Errorf("keeping image %s: %w", r.Reference, err)
		}
		if kept {
			return s.describe(found, r.Reference, ref), nil
		}
	}
	found, err := s.share(ctx, ref, digest, r)
	if err != nil {
		return runtime.Image{}, fmt.Errorf("pulling %s: %w", r.Reference, err)
	}
	return s.describe(found, r.Reference, ref), nil
}

// share joins the pull of the same image with the same credentials that is in progress, or begins it.
func (s *Store) share(ctx context.Context, ref name.Reference, digest name.Digest, r runtime.PullRequest) (*record, error) {
	key, err := s.source.Key(ctx, r.Reference, r.Keychain)
	if err != nil {
		return nil, err
	}
	flight := s.pulls.DoChan(key+" "+digest.DigestStr(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
		defer cancel()
		return s.pull(ctx, ref, digest, r)
	})
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case answer := <-flight:
		found, _ := answer.Val.(*record)
		return found, answer.Err
	}
}

func (s *Store) pull(ctx context.Context, ref name.Reference, digest name.Digest, r runtime.PullRequest) (*record, error) {
	began := time.Now()
	img, _, err := s.source.Image(ctx, digest.Name(), r.Keychain)
	if err != nil {
		return nil, err
	}
	configID, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("reading config: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading config: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("reading layers: %w", err)
	}
	if len(layers) != len(config.RootFS.DiffIDs) {
		return nil, fmt.Errorf("config names %d layers, manifest %d", len(config.RootFS.DiffIDs), len(layers))
	}
	if len(layers) > maxLayers {
		return nil, fmt.Errorf("%d layers; overlayfs stacks at most %d", len(layers), maxLayers)
	}
	found := newRecord(digest.DigestStr(), configID, config)
	release := s.pin(found.Layers)
	defer release()
	if found.SizeBytes, err = s.unpackAll(ctx, layers, config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	if err := s.keep(found, ref); err != nil {
		return nil, err
	}
	s.log.Info("pulled image", "image", ref.Name(), "digest", found.Digest, "bytes", found.SizeBytes, "took", time.Since(began))
	return found, nil
}

// unpackAll brings the layers in, several at a time, and returns their size together.
func (s *Store) unpackAll(ctx context.Context, layers []v1.Layer, diffIDs []v1.Hash) (int64, error) {
	sizes := make([]int64, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range layers {
		group.Go(func() error {
			var err error
			if sizes[i], err = s.ensure(ctx, layers[i], diffIDs[i]); err != nil {
				return fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	var total int64
	for _, size := range sizes {
		total += size
	}
	return total, nil
}

// ensure unpacks a layer unless it is here, and returns its size. Pulls that want the same one wait
// for whoever has begun; where that one fails, for its own reasons perhaps, the next tries itself.
func (s *Store) ensure(ctx context.Context, l v1.Layer, diffID v1.Hash) (int64, error) {
	leave, err := s.enter(ctx, diffID.String())
	if err != nil {
		return 0, err
	}
	defer leave()
	if size, ok := s.size(diffID); ok {
		return size, nil
	}
	return s.unpack(ctx, l, diffID)
}

// enter waits until nobody else works on a layer.
func (s *Store) enter(ctx context.Context, diffID string) (leave func(), err error) {
	for {
		s.mu.Lock()
		other, busy := s.busy[diffID]
		if !busy {
			mine := make(chan struct{})
			s.busy[diffID] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, diffID)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-other:
		}
	}
}

// unpack fetches a layer into a folder aside and gives it its name once it is whole and on disk.
func (s *Store) unpack(ctx context.Context, l v1.Layer, diffID v1.Hash) (int64, error) {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer s.slots.Release(1)
	temp, err := os.MkdirTemp(s.path("tmp"), "layer-*")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // gone already when all went well
	root := filepath.Join(temp, "fs")
	if err := os.Mkdir(root, 0o755); err != nil { //nolint:gosec // it is "/" for every user of the container
		return 0, err
	}
	compressed, err := l.Size()
	if err != nil {
		return 0, err
	}
	content, err := l.Compressed()
	if err != nil {
		return 0, err
	}
	defer func() { _ = content.Close() }()
	limits := layer.Limits{Bytes: max(roomyBytes, compressed*expansion), Entries: maxEntries}
	report, err := layer.Write(ctx, root, content, diffID, limits)
	if err != nil {
		return 0, err
	}
	if report.Devices > 0 {
		s.log.Debug("left device nodes out of layer", "layer", diffID.String(), "devices", report.Devices)
	}
	if err := os.WriteFile(filepath.Join(temp, "size"), []byte(strconv.FormatInt(report.Bytes, 10)), 0o600); err != nil {
		return 0, err
	}
	if err := syncAll(temp); err != nil {
		return 0, fmt.Errorf("syncing: %w", err)
	}
	if err := os.Rename(temp, s.layerPath(diffID.String())); err != nil {
		return 0, err
	}
	return report.Bytes, nil
}

// size tells whether a layer is here, and how large it is.
func (s *Store) size(diffID v1.Hash) (int64, bool) {
	text, err := os.ReadFile(filepath.Join(s.layerPath(diffID.String()), "size"))
	if err != nil {
		return 0, false
	}
	size, err := strconv.ParseInt(string(text), 10, 64)
	return size, err == nil
}

// syncAll puts everything written to a folder's file system on disk, which is one call instead of
// one for each of thousands of files.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.Syncfs(int(f.Fd()))
}

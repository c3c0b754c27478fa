// Package garbage removes images that nobody uses when the disk they are on is nearly full.
package garbage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// The kubelet's defaults, but for how often it looks: nothing here fills a disk within minutes.
const (
	every    = time.Hour
	high     = 0.85 // of the disk in use: begin
	low      = 0.80 // of the disk in use: enough
	leastAge = 2 * time.Minute
)

// Store keeps images for those who lease them.
type Store interface {
	Lease(owner, digest string) error
	Release(owner string) error
	Owners() []string
	// Collect deletes what no image and no lease needs.
	Collect(ctx context.Context) error
}

// Config is what a Collector works with.
type Config struct {
	Images runtime.Images
	Store  Store
	// InUse tells the digests of images that containers run on or will.
	InUse func(ctx context.Context) ([]string, error)
	// Usage is how much of the disk is in use, from 0 to 1.
	Usage func() (float64, error)
	Log   *slog.Logger
}

// Collector removes images. It stands before images and leases, to know when they were used last.
type Collector struct {
	runtime.Images
	Store
	config Config
	began  time.Time // what is not known to have been used counts from here

	mu   sync.Mutex           // guards what follows
	used map[string]time.Time // "sha256:…" → when
	by   map[string]string    // owner of a lease → "sha256:…"
}

// New makes a collector; it does nothing before Run.
func New(c Config) *Collector {
	return &Collector{Images: c.Images, Store: c.Store, config: c, began: time.Now(), used: map[string]time.Time{}, by: map[string]string{}}
}

// bare is a digest without the repository before it.
func bare(digest string) string {
	if _, after, ok := strings.Cut(digest, "@"); ok {
		return after
	}
	return digest
}

func (c *Collector) note(digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[bare(digest)] = time.Now()
}

// Pull implements runtime.Images.
func (c *Collector) Pull(ctx context.Context, r runtime.PullRequest) (runtime.Image, error) {
	img, err := c.Images.Pull(ctx, r)
	if err == nil {
		c.note(img.Digest)
	}
	return img, err
}

// Present implements runtime.Images.
func (c *Collector) Present(ctx context.Context, reference string) (runtime.Image, error) {
	img, err := c.Images.Present(ctx, reference)
	if err == nil {
		c.note(img.Digest)
	}
	return img, err
}

// Lease implements Store.
func (c *Collector) Lease(owner, digest string) error {
	c.mu.Lock()
	c.by[owner] = bare(digest)
	c.mu.Unlock()
	return c.Store.Lease(owner, digest)
}

// Release implements Store.
func (c *Collector) Release(owner string) error {
	c.mu.Lock()
	if digest, ok := c.by[owner]; ok {
		c.used[digest] = time.Now()
		delete(c.by, owner)
	}
	c.mu.Unlock()
	return c.Store.Release(owner)
}

// Run looks at the disk every now and then until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.look(ctx); err != nil && ctx.Err() == nil {
				c.config.Log.Warn("making room where images are", "error", err)
			}
		}
	}
}

// look removes unused images, those first that were not used for longest, until there is room.
func (c *Collector) look(ctx context.Context) error {
	usage, err := c.config.Usage()
	if err != nil || usage <= high {
		return err
	}
	if err := c.Store.Collect(ctx); err != nil {
		return err
	}
	candidates, err := c.candidates(ctx)
	if err != nil {
		return err
	}
	removed := 0
	for _, img := range candidates {
		if usage, err = c.config.Usage(); err != nil || usage <= low {
			break
		}
		if time.Since(c.lastUse(img.Digest)) < leastAge {
			continue // somebody took it up meanwhile
		}
		if err = c.Remove(ctx, img.Digest); err != nil {
			break
		}
		c.forget(img.Digest)
		removed++
	}
	c.config.Log.Info("the disk of the images is nearly full", "removed", removed, "images", len(candidates), "used", fmt.Sprintf("%.0f%%", 100*usage))
	return err
}

// candidates are the images nobody uses, longest unused first.
func (c *Collector) candidates(ctx context.Context) ([]runtime.Image, error) {
	all, listErr := c.List(ctx)
	busy, err := c.config.InUse(ctx)
	if err := errors.Join(listErr, err); err != nil {
		return nil, err
	}
	inUse := map[string]bool{}
	for _, digest := range busy {
		inUse[bare(digest)] = true
	}
	all = slices.DeleteFunc(all, func(img runtime.Image) bool { return inUse[bare(img.Digest)] || c.leased(img.Digest) })
	slices.SortStableFunc(all, func(a, b runtime.Image) int { return c.lastUse(a.Digest).Compare(c.lastUse(b.Digest)) })
	return all, nil
}

func (c *Collector) leased(digest string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.by {
		if other == bare(digest) {
			return true
		}
	}
	return false
}

func (c *Collector) lastUse(digest string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.used[bare(digest)]; ok {
		return at
	}
	return c.began
}

func (c *Collector) forget(digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.used, bare(digest))
}

package garbage_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/garbage"
)

// disk holds images that each take a tenth of it.
type disk struct {
	mu        sync.Mutex // guards below
	images    []string   // "sha256:…"
	other     int        // tenths of the disk that hold other things
	collected int
	broken    error // of removals
}

func (d *disk) Pull(context.Context, runtime.PullRequest) (runtime.Image, error) {
	return runtime.Image{}, errors.New("no network")
}

func (d *disk) Present(_ context.Context, digest string) (runtime.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.images, digest) {
		return runtime.Image{}, runtime.ErrNotFound
	}
	return image(digest), nil
}

func (d *disk) List(context.Context) ([]runtime.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []runtime.Image
	for _, digest := range d.images {
		out = append(out, image(digest))
	}
	return out, nil
}

func (d *disk) Remove(_ context.Context, digest string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	d.images = slices.DeleteFunc(d.images, func(other string) bool { return image(other).Digest == digest })
	return nil
}

func (d *disk) Lease(string, string) error { return nil }
func (d *disk) Release(string) error       { return nil }
func (d *disk) Owners() []string           { return nil }

func (d *disk) Collect(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.collected++
	return nil
}

func (d *disk) usage() (float64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return float64(d.other+len(d.images)) / 10, nil
}

func image(digest string) runtime.Image { return runtime.Image{Digest: "example.com/x@" + digest} }

func use(t *testing.T, c *garbage.Collector, digest string) {
	t.Helper()
	if _, err := c.Present(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
}

func TestCollector(t *testing.T) {
	a, b, c, d := "sha256:a", "sha256:b", "sha256:c", "sha256:d"
	all := []string{a, b, c, d}
	tests := map[string]struct {
		other  int
		inUse  []string
		broken error
		// before is what happens in the hour before the collector looks.
		before    func(t *testing.T, g *garbage.Collector)
		want      []string
		collected int
	}{
		"leaves all while there is room":       {other: 4, want: all},
		"removes until there is enough":        {other: 6, want: []string{c, d}, collected: 1},
		"removes no more than there is":        {other: 10, collected: 1},
		"leaves what containers use":           {other: 10, inUse: []string{"example.com/y@" + b}, want: []string{b}, collected: 1},
		"goes on after what cannot be removed": {other: 6, broken: errors.New("input/output error"), want: all, collected: 1},
		"leaves what is leased": {other: 10, want: []string{c}, collected: 1, before: func(t *testing.T, g *garbage.Collector) {
			for owner, digest := range map[string]string{"one": a, "two": "example.com/x@" + c} {
				if err := g.Lease(owner, digest); err != nil {
					t.Error(err)
				}
			}
			if err := g.Release("one"); err != nil {
				t.Error(err)
			}
		}},
		"begins with what was not used for longest": {other: 6, want: []string{a, b}, collected: 1, before: func(t *testing.T, g *garbage.Collector) {
			time.Sleep(time.Minute)
			use(t, g, b)
			time.Sleep(time.Minute)
			use(t, g, a)
		}},
		"leaves what was just used": {other: 10, want: []string{b}, collected: 1, before: func(t *testing.T, g *garbage.Collector) {
			time.Sleep(59 * time.Minute)
			use(t, g, b)
		}},
		"leaves what was just given up": {other: 10, want: []string{b}, collected: 1, before: func(t *testing.T, g *garbage.Collector) {
			if err := g.Lease("one", b); err != nil {
				t.Error(err)
			}
			time.Sleep(59 * time.Minute)
			if err := g.Release("one"); err != nil {
				t.Error(err)
			}
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &disk{images: slices.Clone(all), other: tc.other, broken: tc.broken}
				g := garbage.New(garbage.Config{
					Images: store, Store: store, Usage: store.usage, Log: slog.New(slog.DiscardHandler),
					InUse: func(context.Context) ([]string, error) { return tc.inUse, nil },
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				began := time.Now()
				go func() { done <- g.Run(ctx) }()
				if tc.before != nil {
					tc.before(t, g)
				}
				time.Sleep(time.Hour + time.Second - time.Since(began))
				synctest.Wait()
				if !slices.Equal(store.images, tc.want) || store.collected != tc.collected {
					t.Errorf("left %v after %d collections, want %v after %d", store.images, store.collected, tc.want, tc.collected)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCollectorRemovesNothingWhenItCannotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{images: []string{"sha256:a"}, other: 10}
		g := garbage.New(garbage.Config{
			Images: store, Store: store, Usage: store.usage, Log: slog.New(slog.DiscardHandler),
			InUse: func(context.Context) ([]string, error) { return nil, errors.New("too busy") },
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		if err := g.Run(ctx); err != nil || len(store.images) != 1 {
			t.Errorf("left %v, %v", store.images, err)
		}
	})
}

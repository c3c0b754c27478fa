package registry

import (
	"context"
	"fmt"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ebb.dev/ebb/internal/platform/image"
)

const (
	// defaultGrace is how long a blob no manifest needs is left alone: its manifest may be on the way.
	defaultGrace = time.Hour
	// leastGrace keeps what a client was told it need not send.
	leastGrace = 2 * freshness
)

// Collection says what to collect.
type Collection struct {
	// Untagged also removes manifests that no tag, index or subject leads to. Running revisions name
	// images by digest, so this is for callers who know that nothing does.
	Untagged bool
	// Grace is the age under which blobs stay; 0 means an hour, and it is never less than 20 minutes.
	Grace time.Duration
}

// Collect removes the blobs no manifest needs. Pulls go on meanwhile, pushes wait at their manifest.
func (r *Registry) Collect(ctx context.Context, c Collection) (image.Collected, error) {
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	return r.collect(ctx, c.Untagged, time.Now().Add(-max(c.Grace, leastGrace)))
}

func (r *Registry) collect(ctx context.Context, untagged bool, before time.Time) (image.Collected, error) {
	r.change.Lock()
	defer r.change.Unlock()
	var out image.Collected
	if untagged {
		for repo, hashes := range r.index.unreachable() {
			for _, h := range hashes {
				if _, err := r.dropLocked(repo, h); err != nil {
					return out, fmt.Errorf("collecting manifest %s: %w", h, err)
				}
				out.Manifests++
			}
		}
	}
	needed := r.index.referenced()
	err := r.blobs.each(func(h v1.Hash, used time.Time) error {
		if needed[h] || used.After(before) {
			return ctx.Err()
		}
		size, err := r.blobs.remove(h)
		if err != nil {
			return err
		}
		out.Blobs++
		out.Bytes += size
		return ctx.Err()
	})
	if err != nil {
		return out, fmt.Errorf("collecting blobs: %w", err)
	}
	return out, nil
}

// unreachable lists each repository's manifests that no tag leads to, by way of indexes or subjects.
func (x *index) unreachable() map[string][]v1.Hash {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := map[string][]v1.Hash{}
	for name, repo := range x.repos {
		reached := repo.reachable()
		for h := range repo.manifests {
			if !reached[h] {
				out[name] = append(out[name], h)
			}
		}
	}
	return out
}

func (r *repository) reachable() map[v1.Hash]bool {
	referrers := map[v1.Hash][]v1.Hash{}
	for h, m := range r.manifests {
		if m.subject != nil {
			referrers[*m.subject] = append(referrers[*m.subject], h)
		}
	}
	reached, next := map[v1.Hash]bool{}, make([]v1.Hash, 0, len(r.tags))
	for _, h := range r.tags {
		next = append(next, h)
	}
	for len(next) > 0 {
		h := next[len(next)-1]
		next = next[:len(next)-1]
		if reached[h] {
			continue
		}
		reached[h] = true
		next = append(next, referrers[h]...)
		if m, ok := r.manifests[h]; ok {
			next = append(next, m.children...)
		}
	}
	return reached
}

// serveCollect is POST /collect, with ?untagged=true for Collection.Untagged.
func (r *Registry) serveCollect(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodPost {
		return errMethod
	}
	out, err := r.Collect(req.Context(), Collection{Untagged: req.URL.Query().Get("untagged") == "true"})
	if err != nil {
		return err
	}
	return writeJSON(w, req, "application/json", out)
}

package unpack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// lease keeps an image's layers for an owner, whatever becomes of the image.
type lease struct {
	Owner  string   `json:"owner"`
	Layers []string `json:"layers"` // diff IDs
}

// Lease keeps the layers of an image ("sha256:…" or "repository@sha256:…") until Release with the
// same owner, across restarts. An owner has one lease; the last counts. It fails with
// runtime.ErrNotFound when the image is not here.
func (s *Store) Lease(owner, digest string) error {
	if _, after, ok := strings.Cut(digest, "@"); ok {
		digest = after
	}
	s.mu.Lock()
	found, ok := s.images[digest]
	if !ok {
		s.mu.Unlock()
		return fmt.Errorf("leasing image %s: %w", digest, runtime.ErrNotFound)
	}
	// In memory first: from here on no collection takes the layers.
	l := lease{Owner: owner, Layers: found.Layers}
	s.leases[owner] = l
	s.mu.Unlock()
	s.change.Lock()
	defer s.change.Unlock()
	// Not synced: what needs the image does not outlive the machine either.
	if err := s.writeJSON(s.leasePath(owner), l, false); err != nil {
		return fmt.Errorf("leasing image %s: %w", digest, err)
	}
	return nil
}

// Release gives an owner's lease back; without one it does nothing. Layers go at the next Collect.
func (s *Store) Release(owner string) error {
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	_, ok := s.leases[owner]
	delete(s.leases, owner)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	if err := ignoreAbsent(os.Remove(s.leasePath(owner))); err != nil {
		return fmt.Errorf("releasing lease of %s: %w", owner, err)
	}
	return nil
}

// Owners lists who holds a lease, so that those whose owners are gone can be released.
func (s *Store) Owners() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]string, 0, len(s.leases))
	for owner := range s.leases {
		out = append(out, owner)
	}
	return out
}

// Collect deletes the layers that no image, lease or pull in progress needs.
func (s *Store) Collect(ctx context.Context) error {
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return fmt.Errorf("collecting layers: %w", err)
	}
	trash, err := os.MkdirTemp(s.path("tmp"), "trash-*")
	if err != nil {
		return fmt.Errorf("collecting layers: %w", err)
	}
	if err := s.discard(entries, trash); err != nil {
		return fmt.Errorf("collecting layers: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx) // what is in the trash goes at the next start
	}
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("collecting layers: %w", err)
	}
	return nil
}

// discard moves unused layers away under the lock, which takes no longer than a rename each; the
// long deletion comes after.
func (s *Store) discard(entries []os.DirEntry, trash string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.used()
	var failed []error
	for _, entry := range entries {
		if !used["sha256:"+entry.Name()] {
			err := os.Rename(s.path("layers", entry.Name()), filepath.Join(trash, entry.Name()))
			failed = append(failed, ignoreAbsent(err))
		}
	}
	return errors.Join(failed...)
}

// used collects the layers in use; the caller holds mu.
func (s *Store) used() map[string]bool {
	out := map[string]bool{}
	for _, r := range s.images {
		for _, diff := range r.Layers {
			out[diff] = true
		}
	}
	for _, l := range s.leases {
		for _, diff := range l.Layers {
			out[diff] = true
		}
	}
	for diff := range s.pinned {
		out[diff] = true
	}
	return out
}

// pin keeps layers while a pull counts on them.
func (s *Store) pin(layers []string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, diff := range layers {
		s.pinned[diff]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, diff := range layers {
			if s.pinned[diff]--; s.pinned[diff] == 0 {
				delete(s.pinned, diff)
			}
		}
	}
}

// leasePath names an owner's file; the owner itself may have any characters.
func (s *Store) leasePath(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return s.path("leases", hex.EncodeToString(sum[:16])+".json")
}

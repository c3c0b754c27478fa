package unpack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/platform/image"
)

// record is one image as kept on disk. It is never changed in place: a new one replaces it.
type record struct {
	Digest     string   `json:"digest"`     // what references resolve to; an index's, where there is one
	ConfigID   string   `json:"config"`     // sha256:… of the config
	Layers     []string `json:"layers"`     // diff IDs, lowest first
	References []string `json:"references"` // canonical, those with tags and those by digest
	SizeBytes  int64    `json:"size"`

	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	User       string   `json:"user,omitempty"`
	StopSignal string   `json:"stopSignal,omitempty"`
	Volumes    []string `json:"volumes,omitempty"`
}

func newRecord(digest string, configID v1.Hash, config *v1.ConfigFile) *record {
	r := &record{
		Digest: digest, ConfigID: configID.String(),
		Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd, Env: config.Config.Env,
		WorkingDir: config.Config.WorkingDir, User: config.Config.User, StopSignal: config.Config.StopSignal,
		Volumes: slices.Sorted(maps.Keys(config.Config.Volumes)),
	}
	for _, diff := range config.RootFS.DiffIDs {
		r.Layers = append(r.Layers, diff.String())
	}
	return r
}

// describe turns a record into what runtimes get. The slices are shared and must not be changed.
func (s *Store) describe(r *record, reference string, ref name.Reference) runtime.Image {
	roots := make([]string, len(r.Layers))
	for i, diff := range r.Layers {
		roots[i] = filepath.Join(s.layerPath(diff), "fs")
	}
	return runtime.Image{
		Reference: reference, Digest: ref.Context().Name() + "@" + r.Digest, ConfigID: r.ConfigID,
		RootFS: roots, SizeBytes: r.SizeBytes,
		Entrypoint: r.Entrypoint, Cmd: r.Cmd, Env: r.Env, WorkingDir: r.WorkingDir,
		User: r.User, StopSignal: r.StopSignal, Volumes: r.Volumes,
	}
}

// load reads the records and leases. An image that misses a layer is dropped: it is pulled again.
func (s *Store) load() error {
	err := eachJSON(s.path("images"), func(path string, content []byte) error {
		r := &record{}
		if err := json.Unmarshal(content, r); err != nil || len(r.References) == 0 || !s.complete(r) {
			return os.Remove(path)
		}
		s.remember(r)
		return nil
	})
	if err != nil {
		return err
	}
	return eachJSON(s.path("leases"), func(path string, content []byte) error {
		var l lease
		if err := json.Unmarshal(content, &l); err != nil || l.Owner == "" {
			return os.Remove(path)
		}
		s.leases[l.Owner] = l
		return nil
	})
}

func eachJSON(dir string, visit func(path string, content []byte) error) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := visit(path, content); err != nil {
			return err
		}
	}
	return nil
}

// complete says whether all layers are on disk.
func (s *Store) complete(r *record) bool {
	for _, diff := range r.Layers {
		if _, err := os.Stat(filepath.Join(s.layerPath(diff), "size")); err != nil {
			return false
		}
	}
	return true
}

// remember puts a record into the maps; the caller holds mu or is the only one.
func (s *Store) remember(r *record) {
	s.forget(r)
	s.images[r.Digest] = r
	repositories := map[string]bool{}
	for _, reference := range r.References {
		ref, err := image.Parse(reference)
		if err != nil {
			continue
		}
		repositories[ref.Context().Name()] = true
		if _, tagged := ref.(name.Tag); tagged {
			s.tags[ref.Name()] = r.Digest
		}
	}
	s.present[r.Digest] = repositories
}

// forget takes a record out of the maps; the caller holds mu.
func (s *Store) forget(r *record) {
	delete(s.images, r.Digest)
	delete(s.present, r.Digest)
	maps.DeleteFunc(s.tags, func(_, digest string) bool { return digest == r.Digest })
}

// keep makes a record known under a reference, taking that tag from the image that had it. The record
// is a new one whose layers the caller has pinned, or one that lookup gave; where nothing changes,
// nothing is written.
func (s *Store) keep(r *record, ref name.Reference) error {
	byDigest := ref.Context().Name() + "@" + r.Digest
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.RLock()
	known, isKnown := s.images[r.Digest]
	holder, isTagged := s.images[s.tags[ref.Name()]]
	s.mu.RUnlock()
	if isKnown {
		r = known
	}
	if _, tag := ref.(name.Tag); isKnown && slices.Contains(r.References, byDigest) && (!tag || isTagged && holder == known) {
		return nil
	}
	if isTagged && holder.Digest != r.Digest {
		if err := s.replace(holder.without(ref.Name())); err != nil {
			return err
		}
	}
	next := *r
	next.References = append(slices.Clone(r.References), byDigest, ref.Name())
	slices.Sort(next.References)
	next.References = slices.Compact(next.References)
	return s.replace(&next)
}

// without is the record less one reference.
func (r *record) without(reference string) *record {
	next := *r
	next.References = slices.DeleteFunc(slices.Clone(r.References), func(t string) bool { return t == reference })
	return &next
}

// tag is keep for a record that lookup gave. It answers false when the image was removed meanwhile.
func (s *Store) tag(r *record, ref name.Reference) (bool, error) {
	release := s.pin(r.Layers)
	defer release()
	s.mu.RLock()
	_, ok := s.images[r.Digest]
	s.mu.RUnlock()
	if !ok {
		return false, nil
	}
	return true, s.keep(r, ref)
}

// replace writes a record and then makes it the known one; the caller holds change.
func (s *Store) replace(r *record) error {
	if err := s.writeJSON(s.imagePath(r.Digest), r, true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(r)
	return nil
}

// writeJSON replaces a file so that after the process's death it has the old or the new content, and
// with durable after the machine's too.
func (s *Store) writeJSON(path string, value any, durable bool) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(s.path("tmp"), "json-*")
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	if durable && err == nil {
		err = temp.Sync()
	}
	err = errors.Join(err, temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", filepath.Base(path), err), ignoreAbsent(os.Remove(temp.Name())))
	}
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

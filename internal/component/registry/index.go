package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	repositoryFolder = "repositories"
	manifestFolder   = "_manifests"
	tagFolder        = "_tags"
)

// index is what is on disk about repositories, in memory. Its mutex is never held across I/O.
type index struct {
	mu    sync.RWMutex
	repos map[string]*repository
}

type repository struct {
	manifests map[v1.Hash]*manifest
	tags      map[string]v1.Hash
}

// manifest is what the registry needs to know of one without reading it again.
type manifest struct {
	mediaType    types.MediaType
	artifactType string
	annotations  map[string]string
	size         int64
	subject      *v1.Hash  // the manifest it refers to, if any
	blobs        []v1.Hash // config and layers kept here
	children     []v1.Hash // of an index
}

// document is the part of every kind of manifest that matters here.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *v1.Descriptor    `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Blobs         []v1.Descriptor   `json:"blobs"`
	Manifests     []v1.Descriptor   `json:"manifests"`
	Subject       *v1.Descriptor    `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// parseManifest reads a manifest of any kind. One that names no media type is an OCI image or index,
// by what it holds.
func parseManifest(content []byte) (*manifest, error) {
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, invalid("not JSON: " + err.Error())
	}
	if doc.SchemaVersion != 2 {
		return nil, invalid(fmt.Sprintf("schema version %d; this registry keeps version 2", doc.SchemaVersion))
	}
	m := &manifest{mediaType: doc.MediaType, artifactType: doc.ArtifactType, annotations: doc.Annotations, size: int64(len(content))}
	if m.mediaType == "" {
		m.mediaType = types.OCIManifestSchema1
		if doc.Manifests != nil {
			m.mediaType = types.OCIImageIndex
		}
	}
	if doc.Subject != nil {
		m.subject = &doc.Subject.Digest
	}
	if doc.Config != nil {
		m.blobs = append(m.blobs, doc.Config.Digest)
		if m.artifactType == "" {
			m.artifactType = string(doc.Config.MediaType)
		}
	}
	for _, layer := range slices.Concat(doc.Layers, doc.Blobs) {
		if layer.MediaType.IsDistributable() && len(layer.URLs) == 0 {
			m.blobs = append(m.blobs, layer.Digest)
		}
	}
	for _, child := range doc.Manifests {
		m.children = append(m.children, child.Digest)
	}
	return m, m.check()
}

func (m *manifest) check() error {
	for _, h := range slices.Concat(m.blobs, m.children) {
		if !validHash(h) {
			return invalid("digest " + h.String() + " is not sha256")
		}
	}
	if m.subject != nil && !validHash(*m.subject) {
		return invalid("the subject's digest is not sha256")
	}
	return nil
}

func invalid(message string) error { return refuse(400, "MANIFEST_INVALID", message) }

func validHash(h v1.Hash) bool {
	_, err := v1.NewHash(h.String())
	return err == nil && h.Algorithm == "sha256"
}

func hashOf(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// open reads the folder. A manifest whose content is not what its name says, and a tag whose
// manifest is missing, are left out: they can only come from a broken disk.
func (x *index) open(f folder) error {
	x.repos = map[string]*repository{}
	err := fs.WalkDir(f.FS(), repositoryFolder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if strings.HasPrefix(entry.Name(), ".new-") { // left by a crash
			return f.Remove(file)
		}
		content, err := f.ReadFile(file)
		if err != nil {
			return err
		}
		kind := path.Dir(file)
		x.load(strings.TrimPrefix(path.Dir(kind), repositoryFolder+"/"), path.Base(kind), entry.Name(), content)
		return nil
	})
	if err != nil {
		return err
	}
	for repo, r := range x.repos {
		maps.DeleteFunc(r.tags, func(_ string, h v1.Hash) bool { return r.manifests[h] == nil })
		x.tidy(repo)
	}
	return nil
}

func (x *index) load(repo, kind, file string, content []byte) {
	switch kind {
	case manifestFolder:
		if m, err := parseManifest(content); err == nil && hashOf(content).Hex == file {
			x.repo(repo).manifests[hashOf(content)] = m
		}
	case tagFolder:
		if h, err := v1.NewHash(string(content)); err == nil {
			x.repo(repo).tags[file] = h
		}
	}
}

// repo returns a repository, made when needed; the caller holds mu or is the only one.
func (x *index) repo(name string) *repository {
	r, ok := x.repos[name]
	if !ok {
		r = &repository{manifests: map[v1.Hash]*manifest{}, tags: map[string]v1.Hash{}}
		x.repos[name] = r
	}
	return r
}

// tidy forgets a repository that holds nothing; the caller holds mu or is the only one.
func (x *index) tidy(name string) {
	if r, ok := x.repos[name]; ok && len(r.manifests) == 0 {
		delete(x.repos, name)
	}
}

func (x *index) manifestPath(repo string, h v1.Hash) string {
	return path.Join(repositoryFolder, repo, manifestFolder, h.Hex)
}

func (x *index) tagPath(repo, tag string) string {
	return path.Join(repositoryFolder, repo, tagFolder, tag)
}

// find resolves a tag or digest.
func (x *index) find(repo, target string) (v1.Hash, *manifest, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r, ok := x.repos[repo]
	if !ok {
		return v1.Hash{}, nil, errManifestUnknown
	}
	h, tagged := r.tags[target]
	if !tagged {
		var err error
		if h, err = v1.NewHash(target); err != nil {
			return v1.Hash{}, nil, errManifestUnknown
		}
	}
	m, ok := r.manifests[h]
	if !ok {
		return v1.Hash{}, nil, errManifestUnknown
	}
	return h, m, nil
}

// names lists all repositories, sorted.
func (x *index) names() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Sorted(maps.Keys(x.repos))
}

// tags lists a repository's tags, sorted.
func (x *index) tags(repo string) ([]string, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r, ok := x.repos[repo]
	if !ok {
		return nil, errNameUnknown
	}
	return slices.Sorted(maps.Keys(r.tags)), nil
}

// referenced collects every blob some manifest needs.
func (x *index) referenced() map[v1.Hash]bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	needed := map[v1.Hash]bool{}
	for _, r := range x.repos {
		for _, m := range r.manifests {
			for _, h := range m.blobs {
				needed[h] = true
			}
		}
	}
	return needed
}

package registry

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func (r *Registry) getManifest(w http.ResponseWriter, req *http.Request, repo, target string) error {
	h, m, err := r.index.find(repo, target)
	if err != nil {
		return err
	}
	head := w.Header()
	head.Set("Content-Type", string(m.mediaType))
	head.Set("Content-Length", strconv.FormatInt(m.size, 10))
	head.Set("Docker-Content-Digest", h.String())
	head.Set("Etag", `"`+h.String()+`"`)
	if req.Method == http.MethodHead {
		return nil
	}
	content, err := r.folder.ReadFile(r.index.manifestPath(repo, h))
	if absent(err) { // deleted in between
		return errManifestUnknown
	}
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return quiet(req, err)
}

func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, repo, target string) error {
	content, err := io.ReadAll(io.LimitReader(req.Body, r.config.MaxManifestBytes+1))
	if err != nil {
		return refuse(http.StatusBadRequest, "MANIFEST_INVALID", "the manifest did not arrive whole")
	}
	if int64(len(content)) > r.config.MaxManifestBytes {
		return errTooLarge
	}
	m, err := parseManifest(content)
	if err != nil {
		return err
	}
	if said, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err == nil && said != string(m.mediaType) {
		return invalid(fmt.Sprintf("sent as %s, says %s", said, m.mediaType))
	}
	h, tag := hashOf(content), ""
	if want, err := v1.NewHash(target); err == nil {
		if want != h {
			return errDigestInvalid
		}
	} else if tag = target; !tagPattern.MatchString(tag) {
		return errTagInvalid
	}
	if err := r.keep(repo, tag, h, m, content); err != nil {
		return err
	}
	if tag != "" {
		r.config.Tagged(repo, tag, h.String())
	}
	if m.subject != nil {
		w.Header().Set("Oci-Subject", m.subject.String())
	}
	w.Header().Set("Docker-Content-Digest", h.String())
	w.Header().Set("Location", "/v2/"+repo+"/manifests/"+h.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

// keep writes a manifest, then its tag, then tells the index. Blobs must be here already; an index's
// images need not be, since saved images often hold one platform of many.
func (r *Registry) keep(repo, tag string, h v1.Hash, m *manifest, content []byte) error {
	r.change.Lock()
	defer r.change.Unlock()
	for _, blob := range m.blobs {
		ok, err := r.blobs.has(blob)
		if err != nil {
			return err
		}
		if !ok {
			return refuse(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "blob "+blob.String()+" was not pushed")
		}
	}
	if _, _, err := r.index.find(repo, h.String()); err != nil {
		if err := r.folder.write(r.index.manifestPath(repo, h), content); err != nil {
			return err
		}
	}
	if tag != "" {
		if err := r.folder.write(r.index.tagPath(repo, tag), []byte(h.String())); err != nil {
			return err
		}
	}
	r.index.mu.Lock()
	defer r.index.mu.Unlock()
	entry := r.index.repo(repo)
	entry.manifests[h] = m
	if tag != "" {
		entry.tags[tag] = h
	}
	return nil
}

// deleteManifest removes a tag, or a manifest with all tags that stand for it.
func (r *Registry) deleteManifest(w http.ResponseWriter, _ *http.Request, repo, target string) error {
	h, _, err := r.index.find(repo, target)
	if err != nil {
		return err
	}
	var tags []string
	if target == h.String() {
		tags, err = r.drop(repo, h)
	} else {
		tags, err = []string{target}, r.untag(repo, target)
	}
	if err != nil {
		return err
	}
	for _, tag := range tags {
		r.config.Tagged(repo, tag, "")
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (r *Registry) untag(repo, tag string) error {
	r.change.Lock()
	defer r.change.Unlock()
	if err := r.folder.remove(r.index.tagPath(repo, tag)); err != nil {
		return err
	}
	r.index.mu.Lock()
	defer r.index.mu.Unlock()
	if entry, ok := r.index.repos[repo]; ok {
		delete(entry.tags, tag)
	}
	return nil
}

// drop removes a manifest and its tags, tags first: a tag without its manifest must never be seen.
func (r *Registry) drop(repo string, h v1.Hash) ([]string, error) {
	r.change.Lock()
	defer r.change.Unlock()
	return r.dropLocked(repo, h)
}

func (r *Registry) dropLocked(repo string, h v1.Hash) ([]string, error) {
	tags := r.index.tagsOf(repo, h)
	for _, tag := range tags {
		if err := r.folder.remove(r.index.tagPath(repo, tag)); err != nil {
			return nil, err
		}
	}
	r.index.mu.Lock()
	if entry, ok := r.index.repos[repo]; ok {
		for _, tag := range tags {
			delete(entry.tags, tag)
		}
		delete(entry.manifests, h)
		r.index.tidy(repo)
	}
	r.index.mu.Unlock()
	return tags, r.folder.remove(r.index.manifestPath(repo, h))
}

// tagsOf lists the tags that stand for a manifest.
func (x *index) tagsOf(repo string, h v1.Hash) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var tags []string
	if entry, ok := x.repos[repo]; ok {
		for tag, of := range entry.tags {
			if of == h {
				tags = append(tags, tag)
			}
		}
	}
	return tags
}

// quiet passes over an error of writing to a client that has left.
func quiet(req *http.Request, err error) error {
	if req.Context().Err() != nil {
		return nil //nolint:nilerr // there is nobody left to tell
	}
	return err
}

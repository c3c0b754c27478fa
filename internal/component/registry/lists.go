package registry

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func (r *Registry) catalog(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodGet {
		return errMethod
	}
	names, err := page(w, req, r.index.names())
	if err != nil {
		return err
	}
	return writeJSON(w, req, "application/json", map[string][]string{"repositories": names})
}

func (r *Registry) listTags(w http.ResponseWriter, req *http.Request, repo, target string) error {
	if target != "list" {
		return refuse(http.StatusNotFound, "UNSUPPORTED", "no such resource")
	}
	all, err := r.index.tags(repo)
	if err != nil {
		return err
	}
	tags, err := page(w, req, all)
	if err != nil {
		return err
	}
	return writeJSON(w, req, "application/json", map[string]any{"name": repo, "tags": tags})
}

// page cuts a sorted list by the request's n and last, and names the next page in a Link header.
func page(w http.ResponseWriter, req *http.Request, all []string) ([]string, error) {
	query := req.URL.Query()
	if last := query.Get("last"); last != "" {
		at, found := slices.BinarySearch(all, last)
		if found {
			at++
		}
		all = all[at:]
	}
	out := append([]string{}, all...)
	if !query.Has("n") {
		return out, nil
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 0 {
		return nil, refuse(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n must be a number")
	}
	if n >= len(out) {
		return out, nil
	}
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {out[n-1]}}
		w.Header().Set("Link", "<"+req.URL.Path+"?"+next.Encode()+`>; rel="next"`)
	}
	return out[:n], nil
}

// listReferrers lists the manifests whose subject is a digest, as an index.
func (r *Registry) listReferrers(w http.ResponseWriter, req *http.Request, repo, target string) error {
	h, err := parseDigest(target)
	if err != nil {
		return err
	}
	kind := req.URL.Query().Get("artifactType")
	answer := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	r.index.mu.RLock()
	if entry, ok := r.index.repos[repo]; ok {
		for digest, m := range entry.manifests {
			if m.subject == nil || *m.subject != h || kind != "" && m.artifactType != kind {
				continue
			}
			answer.Manifests = append(answer.Manifests, v1.Descriptor{
				MediaType: m.mediaType, Digest: digest, Size: m.size, ArtifactType: m.artifactType, Annotations: m.annotations,
			})
		}
	}
	r.index.mu.RUnlock()
	slices.SortFunc(answer.Manifests, func(a, b v1.Descriptor) int { return slices.Compare([]byte(a.Digest.Hex), []byte(b.Digest.Hex)) })
	if kind != "" {
		w.Header().Set("Oci-Filters-Applied", "artifactType")
	}
	return writeJSON(w, req, string(types.OCIImageIndex), answer)
}

func writeJSON(w http.ResponseWriter, req *http.Request, mediaType string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, err = w.Write(content)
	return quiet(req, err)
}

// isClientError tells a body that broke off from a disk that did.
func isClientError(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, http.ErrBodyReadAfterClose)
}

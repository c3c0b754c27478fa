package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func (r *Registry) getBlob(w http.ResponseWriter, req *http.Request, _, target string) error {
	h, err := parseDigest(target)
	if err != nil {
		return err
	}
	f, err := r.blobs.open(h)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if req.Method == http.MethodHead {
		// Whoever asks this is about to leave a blob out of a push.
		if ok, err := r.blobs.has(h); !ok || err != nil {
			return errors.Join(errBlobUnknown, err)
		}
	}
	head := w.Header()
	head.Set("Content-Type", "application/octet-stream")
	head.Set("Docker-Content-Digest", h.String())
	head.Set("Etag", `"`+h.String()+`"`)
	http.ServeContent(w, req, "", time.Time{}, f)
	return nil
}

func (r *Registry) deleteBlob(w http.ResponseWriter, _ *http.Request, _, target string) error {
	h, err := parseDigest(target)
	if err != nil {
		return err
	}
	r.change.Lock()
	defer r.change.Unlock()
	if r.index.referenced()[h] {
		return errInUse
	}
	if _, err := r.blobs.remove(h); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// beginUpload opens a session, takes a whole blob at once (?digest=), or gives the repository a blob
// that is here already (?mount=).
func (r *Registry) beginUpload(w http.ResponseWriter, req *http.Request, repo, target string) error {
	if target != "" {
		return errMethod
	}
	query := req.URL.Query()
	if h, err := v1.NewHash(query.Get("mount")); err == nil {
		ok, err := r.blobs.has(h)
		if err != nil {
			return err
		}
		if ok {
			created(w, repo, h)
			return nil
		}
	}
	up, err := r.uploads.begin()
	if err != nil {
		return err
	}
	if query.Has("digest") {
		return r.complete(w, req, repo, up)
	}
	standing(w, repo, up)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (r *Registry) uploadStatus(w http.ResponseWriter, _ *http.Request, repo, target string) error {
	up, err := r.uploads.find(target)
	if err != nil {
		return err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	standing(w, repo, up)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (r *Registry) patchUpload(w http.ResponseWriter, req *http.Request, repo, target string) error {
	up, err := r.uploads.find(target)
	if err != nil {
		return err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if err := r.chunk(w, req, repo, up); err != nil {
		return err
	}
	standing(w, repo, up)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (r *Registry) finishUpload(w http.ResponseWriter, req *http.Request, repo, target string) error {
	up, err := r.uploads.find(target)
	if err != nil {
		return err
	}
	return r.complete(w, req, repo, up)
}

func (r *Registry) cancelUpload(w http.ResponseWriter, _ *http.Request, _, target string) error {
	if _, err := r.uploads.find(target); err != nil {
		return err
	}
	r.uploads.drop(target)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// chunk appends the request's body; the caller holds the session's mutex.
func (r *Registry) chunk(w http.ResponseWriter, req *http.Request, repo string, up *upload) error {
	if up.done {
		return errUploadUnknown
	}
	if start, ok, err := rangeStart(req); err != nil || ok && start != up.size {
		standing(w, repo, up)
		return errUploadInvalid
	}
	err := up.write(req.Body, r.config.MaxBlobBytes)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTooLarge):
		return r.abandon(up, err)
	case req.Context().Err() != nil || isClientError(err):
		return refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the chunk did not arrive whole; ask where the upload stands and go on from there")
	}
	return r.abandon(up, err)
}

// abandon ends a session whose file cannot be trusted any more; the caller holds its mutex.
func (r *Registry) abandon(up *upload, err error) error {
	up.done = true
	r.uploads.forget(up.id)
	return errors.Join(err, up.file.Close(), r.folder.remove(up.name()))
}

// complete takes the last chunk, compares the digest and makes the file a blob.
func (r *Registry) complete(w http.ResponseWriter, req *http.Request, repo string, up *upload) error {
	up.mu.Lock()
	defer up.mu.Unlock()
	want, err := parseDigest(req.URL.Query().Get("digest"))
	if err != nil {
		return errors.Join(err, r.abandon(up, nil))
	}
	if err := r.chunk(w, req, repo, up); err != nil {
		return err
	}
	if up.digest() != want {
		return r.abandon(up, errDigestInvalid)
	}
	up.done = true
	r.uploads.forget(up.id)
	if err := r.blobs.add(up.file, up.name(), want); err != nil {
		return errors.Join(err, r.folder.remove(up.name()))
	}
	created(w, repo, want)
	return nil
}

func created(w http.ResponseWriter, repo string, h v1.Hash) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+h.String())
	w.Header().Set("Docker-Content-Digest", h.String())
	w.WriteHeader(http.StatusCreated)
}

// standing tells how far an upload has come; the caller holds its mutex or is the only one.
func standing(w http.ResponseWriter, repo string, up *upload) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+up.id)
	w.Header().Set("Docker-Upload-Uuid", up.id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(up.size-1, 0)))
}

// rangeStart reads where a chunk says it begins: "Content-Range: 1024-2047".
func rangeStart(req *http.Request) (start int64, ok bool, err error) {
	text := req.Header.Get("Content-Range")
	if text == "" {
		return 0, false, nil
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(text, "bytes "), "-")
	start, err = strconv.ParseInt(strings.TrimSpace(first), 10, 64)
	return start, true, err
}

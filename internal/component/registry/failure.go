package registry

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"syscall"
)

// failure is an answer in the error form of the distribution specification.
type failure struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Message }

func refuse(status int, code, message string) *failure {
	return &failure{status: status, Code: code, Message: message}
}

var (
	errBlobUnknown     = refuse(http.StatusNotFound, "BLOB_UNKNOWN", "no such blob here")
	errManifestUnknown = refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest here")
	errNameUnknown     = refuse(http.StatusNotFound, "NAME_UNKNOWN", "no such repository here")
	errNameInvalid     = refuse(http.StatusBadRequest, "NAME_INVALID", "a repository name is lower-case letters, digits and . _ - between slashes, at most 255 characters")
	errTagInvalid      = refuse(http.StatusBadRequest, "TAG_INVALID", "a tag is at most 128 letters, digits, . _ and -")
	errDigestInvalid   = refuse(http.StatusBadRequest, "DIGEST_INVALID", "a digest is sha256: and 64 hexadecimal digits, and must be the content's")
	errUploadUnknown   = refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload; begin again")
	errUploadInvalid   = refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "the chunk does not begin where the upload stands")
	errTooManyUploads  = refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many uploads at the same time")
	errTooLarge        = refuse(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "larger than this registry takes")
	errMethod          = refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "no such operation")
	errForeign         = refuse(http.StatusForbidden, "DENIED", "this registry answers on this machine's own addresses only")
	errInUse           = refuse(http.StatusForbidden, "DENIED", "a manifest needs this blob")
)

// fail writes an error. What is not a failure is logged and answered without its text, which may
// name files.
func (r *Registry) fail(w http.ResponseWriter, req *http.Request, err error) {
	answer, ok := errors.AsType[*failure](err)
	switch {
	case ok:
	case errors.Is(err, syscall.ENOSPC):
		answer = refuse(http.StatusInsufficientStorage, "UNKNOWN", "no space left for this image")
		r.log.Error("storing image", "path", req.URL.Path, "error", err)
	default:
		answer = refuse(http.StatusInternalServerError, "UNKNOWN", "internal error, see ebb's log")
		if req.Context().Err() == nil {
			r.log.Error("serving image", "method", req.Method, "path", req.URL.Path, "error", err)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.status)
	// The client is gone when this fails, and it is the only one who would want to know.
	_ = json.NewEncoder(w).Encode(map[string][]*failure{"errors": {answer}})
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

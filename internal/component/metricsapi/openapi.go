package metricsapi

import (
	"crypto/sha256"
	_ "embed" // for the schemas
	"encoding/hex"
	"encoding/json"
	"net/http"
)

// schemas is the OpenAPI 3 document of the group, so that `kubectl explain podmetrics` answers.
//
//go:embed openapi.json
var schemas []byte

// handlers is the part of upstream's mux that takes fixed paths.
type handlers interface {
	Handle(path string, h http.Handler)
}

// installSchemas answers the API server, which merges every group's documents into its own. The older
// format is empty: it serves clients that do not know these kinds anyway.
func installSchemas(mux handlers) {
	sum := sha256.Sum256(schemas)
	hash := hex.EncodeToString(sum[:])
	path := "/openapi/v3/apis/" + Group + "/" + Version
	index := map[string]any{"paths": map[string]any{
		"apis/" + Group + "/" + Version: map[string]string{"serverRelativeURL": path + "?hash=" + hash},
	}}
	empty := map[string]any{
		"swagger": "2.0",
		"info":    map[string]string{"title": Group, "version": Version},
		"paths":   map[string]any{},
	}
	mux.Handle("/openapi/v2", document(marshal(empty), "v2"))
	mux.Handle("/openapi/v3", document(marshal(index), hash))
	mux.Handle(path, document(schemas, hash))
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		return nil // maps of strings always encode
	}
	return data
}

// document serves JSON that changes with the program only.
func document(data []byte, tag string) http.Handler {
	tag = `"` + tag + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data) // a caller that went away has no use for the error
	})
}

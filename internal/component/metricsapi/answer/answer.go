// Package answer is what handlers of metrics APIs have in common: how they write, and what they say of
// themselves and of paths they do not have.
package answer

import (
	"encoding/json"
	"log/slog"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A Writer writes the answers of one API.
type Writer struct {
	// Group is the API's, Versions are those served, the preferred one first.
	Group    string
	Versions []string
	Log      *slog.Logger
}

// Mux returns a mux that answers for the group, for its OpenAPI documents, which name no paths, and
// for all that nothing else is added for.
func (a Writer) Mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/"+a.Group, func(w http.ResponseWriter, _ *http.Request) { a.Write(w, http.StatusOK, a.group()) })
	mux.HandleFunc("GET /openapi/v2", func(w http.ResponseWriter, _ *http.Request) {
		a.Write(w, http.StatusOK, map[string]any{"swagger": "2.0", "info": map[string]string{"title": a.Group, "version": a.Versions[0]}, "paths": map[string]any{}})
	})
	mux.HandleFunc("GET /openapi/v3", func(w http.ResponseWriter, _ *http.Request) {
		a.Write(w, http.StatusOK, map[string]any{"paths": map[string]any{}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		missing := apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{Group: a.Group}, "", "no such path", 0, false)
		a.Fail(w, missing.ErrStatus)
	})
	return mux
}

func (a Writer) group() metav1.APIGroup {
	g := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: a.Group}
	for _, version := range a.Versions {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: a.Group + "/" + version, Version: version})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}

// Fail answers with a status.
func (a Writer) Fail(w http.ResponseWriter, status metav1.Status) {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	a.Write(w, int(status.Code), status)
}

// Write answers with an object.
func (a Writer) Write(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		a.Log.Error("encoding metrics", "group", a.Group, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(data) // a caller that went away has no use for the error
}

// Package custom serves custom.metrics.k8s.io: what ebb knows of revisions' requests, for
// HorizontalPodAutoscalers and whoever asks.
//
// A revision's concurrency and rps are counted where its requests pass. Each of its ready pods is said
// to have an equal share, so that a HorizontalPodAutoscaler's average is the revision's. Other metrics
// are not found here; an adapter that serves them registers the API in place of this one.
package custom

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/custom_metrics"
)

// Group is the API's.
const Group = custom_metrics.GroupName

// Versions lists what is served, the preferred one first.
func Versions() []string { return []string{"v1beta2", "v1beta1"} }

// The metrics there are.
const (
	Concurrency = "concurrency"
	RPS         = "rps"
)

// Kinds of objects that have metrics, as they are named in a URL.
const (
	ofPods      = "pods"
	ofRevisions = "revisions.serving.knative.dev"
)

// Objects finds pods from memory.
type Objects interface {
	Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error)
}

// Config says where the objects and the figures come from.
type Config struct {
	Objects Objects
	Gauge   *Gauge
	Log     *slog.Logger
}

// New returns the handler. It does not ask who calls: it must be reachable by an API server only, which
// has authorized the request.
func New(c Config) http.Handler {
	s := server{c}
	mux := http.NewServeMux()
	root := "/apis/" + Group
	mux.HandleFunc("GET "+root, func(w http.ResponseWriter, _ *http.Request) { s.write(w, http.StatusOK, group()) })
	for _, version := range Versions() {
		at := root + "/" + version
		mux.HandleFunc("GET "+at, func(w http.ResponseWriter, _ *http.Request) { s.write(w, http.StatusOK, resources(version)) })
		mux.HandleFunc("GET "+at+"/namespaces/{namespace}/{resource}/{name}/{metric}", func(w http.ResponseWriter, r *http.Request) {
			s.answer(w, r, version)
		})
	}
	mux.HandleFunc("GET /openapi/v2", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, http.StatusOK, map[string]any{"swagger": "2.0", "info": map[string]string{"title": Group, "version": Versions()[0]}, "paths": map[string]any{}})
	})
	mux.HandleFunc("GET /openapi/v3", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, http.StatusOK, map[string]any{"paths": map[string]any{}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{Group: Group}, "", "no such path", 0, false))
	})
	return mux
}

func group() metav1.APIGroup {
	g := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: Group}
	for _, version := range Versions() {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: Group + "/" + version, Version: version})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}

func resources(version string) metav1.APIResourceList {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: Group + "/" + version}
	for _, of := range []string{ofPods, ofRevisions} {
		for _, metric := range []string{Concurrency, RPS} {
			list.APIResources = append(list.APIResources, metav1.APIResource{
				Name: of + "/" + metric, Namespaced: true, Kind: "MetricValueList", Verbs: metav1.Verbs{"get"},
			})
		}
	}
	return list
}

type server struct{ Config }

// answer gives one metric of the objects asked for.
func (s server) answer(w http.ResponseWriter, r *http.Request, version string) {
	q := query{
		namespace: r.PathValue("namespace"), resource: r.PathValue("resource"),
		name: r.PathValue("name"), metric: r.PathValue("metric"),
	}
	var err error
	if q.selector, err = labels.Parse(r.URL.Query().Get("labelSelector")); err != nil {
		s.fail(w, apierrors.NewBadRequest("reading labelSelector: "+err.Error()))
		return
	}
	if q.name == custom_metrics.AllObjects {
		q.name = ""
	}
	found, err := s.values(q)
	switch {
	case err != nil:
		s.fail(w, apierrors.NewServiceUnavailable(err.Error()))
	case len(found) == 0:
		s.fail(w, apierrors.NewNotFound(schema.GroupResource{Group: Group, Resource: q.resource + "/" + q.metric}, q.namespace+"/"+r.PathValue("name")))
	default:
		s.write(w, http.StatusOK, list(version, q.metric, found))
	}
}

func (s server) fail(w http.ResponseWriter, err *apierrors.StatusError) {
	err.ErrStatus.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	s.write(w, int(err.ErrStatus.Code), err.ErrStatus)
}

func (s server) write(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		s.Log.Error("encoding custom metrics", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(data) // a caller that went away has no use for the error
}

// sorted puts values in the order of their objects' names.
func sorted(values []value) []value {
	slices.SortFunc(values, func(a, b value) int { return strings.Compare(a.object.Name, b.object.Name) })
	return values
}

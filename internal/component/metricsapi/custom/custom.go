// Package custom serves custom.metrics.k8s.io: what ebb knows of revisions' requests, for
// HorizontalPodAutoscalers and whoever asks.
//
// A revision's concurrency and rps are counted where its requests pass. Each of its ready pods is said
// to have an equal share, so that a HorizontalPodAutoscaler's average is the revision's. Other metrics
// are not found here; an adapter that serves them registers the API in place of this one.
package custom

import (
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

	"ebb.dev/ebb/internal/component/metricsapi/answer"
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
	s := server{c, answer.Writer{Group: Group, Versions: Versions(), Log: c.Log}}
	mux := s.Mux()
	for _, version := range Versions() {
		at := "/apis/" + Group + "/" + version
		mux.HandleFunc("GET "+at, func(w http.ResponseWriter, _ *http.Request) { s.Write(w, http.StatusOK, resources(version)) })
		mux.HandleFunc("GET "+at+"/namespaces/{namespace}/{resource}/{name}/{metric}", func(w http.ResponseWriter, r *http.Request) {
			s.answer(w, r, version)
		})
	}
	return mux
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

type server struct {
	Config
	answer.Writer
}

// answer gives one metric of the objects asked for.
func (s server) answer(w http.ResponseWriter, r *http.Request, version string) {
	q := query{
		namespace: r.PathValue("namespace"), resource: r.PathValue("resource"),
		name: r.PathValue("name"), metric: r.PathValue("metric"),
	}
	var err error
	if q.selector, err = labels.Parse(r.URL.Query().Get("labelSelector")); err != nil {
		s.Fail(w, apierrors.NewBadRequest("reading labelSelector: "+err.Error()).ErrStatus)
		return
	}
	if q.name == custom_metrics.AllObjects {
		q.name = ""
	}
	found, err := s.values(q)
	switch {
	case err != nil:
		s.Fail(w, apierrors.NewServiceUnavailable(err.Error()).ErrStatus)
	case len(found) == 0:
		of := schema.GroupResource{Group: Group, Resource: q.resource + "/" + q.metric}
		s.Fail(w, apierrors.NewNotFound(of, q.namespace+"/"+r.PathValue("name")).ErrStatus)
	default:
		s.Write(w, http.StatusOK, list(version, q.metric, found))
	}
}

// sorted puts values in the order of their objects' names.
func sorted(values []value) []value {
	slices.SortFunc(values, func(a, b value) int { return strings.Compare(a.object.Name, b.object.Name) })
	return values
}

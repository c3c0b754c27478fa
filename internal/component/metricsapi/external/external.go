// Package external serves external.metrics.k8s.io: what the triggers of ScaledObjects say, for
// HorizontalPodAutoscalers and whoever asks.
//
// A metric is found by its name and by the label that names its ScaledObject, as with KEDA. The figures
// are those the replicas were last decided by; a question here makes nobody ask a trigger anew.
package external

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"ebb.dev/ebb/internal/component/metricsapi/answer"
)

// Group and Version are what the handler serves.
const (
	Group   = external_metrics.GroupName
	Version = "v1beta1"
)

// errStarting is what is answered until there are values.
var errStarting = errors.New("the triggers are still starting")

// Values knows the metrics of ScaledObjects. An error that is an API status is answered as it is.
type Values interface {
	Metric(ctx context.Context, namespace, object, metric string) ([]external_metrics.ExternalMetricValue, error)
}

// Config says where the figures come from.
type Config struct {
	// Values returns where to ask, nil as long as there is nobody to be asked: the API must answer
	// from the first moment, since discovery of all others waits for it.
	Values func() Values
	Log    *slog.Logger
}

// New returns the handler. It does not ask who calls: it must be reachable by an API server only, which
// has authorized the request.
func New(c Config) http.Handler {
	s := server{c, answer.Writer{Group: Group, Versions: []string{Version}, Log: c.Log}}
	mux := s.Mux()
	at := "/apis/" + Group + "/" + Version
	mux.HandleFunc("GET "+at, func(w http.ResponseWriter, _ *http.Request) { s.Write(w, http.StatusOK, resources()) })
	mux.HandleFunc("GET "+at+"/namespaces/{namespace}/{metric}", s.answer)
	return mux
}

// resources has one entry for all metrics, as upstream's: their names are only known by their objects.
func resources() metav1.APIResourceList {
	return metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: Group + "/" + Version,
		APIResources: []metav1.APIResource{{
			Name: "externalmetrics", Namespaced: true, Kind: "ExternalMetricValueList", Verbs: metav1.Verbs{"get"},
		}},
	}
}

type server struct {
	Config
	answer.Writer
}

// answer gives the figures of one metric.
func (s server) answer(w http.ResponseWriter, r *http.Request) {
	namespace, metric := r.PathValue("namespace"), r.PathValue("metric")
	object, err := objectOf(r.URL.Query().Get("labelSelector"))
	if err != nil {
		s.fail(w, err)
		return
	}
	values := s.Values()
	if values == nil {
		s.fail(w, apierrors.NewServiceUnavailable(errStarting.Error()))
		return
	}
	found, err := values.Metric(r.Context(), namespace, object, metric)
	if err != nil {
		s.fail(w, err)
		return
	}
	list := v1beta1.ExternalMetricValueList{
		TypeMeta: metav1.TypeMeta{Kind: "ExternalMetricValueList", APIVersion: Group + "/" + Version}, Items: []v1beta1.ExternalMetricValue{},
	}
	for i := range found {
		list.Items = append(list.Items, written(&found[i]))
	}
	s.Write(w, http.StatusOK, list)
}

// objectOf reads which object a selector names.
func objectOf(selector string) (string, error) {
	parsed, err := labels.Parse(selector)
	if err != nil {
		return "", apierrors.NewBadRequest("reading labelSelector: " + err.Error())
	}
	name, ok := parsed.RequiresExactMatch(kedav1alpha1.ScaledObjectOwnerAnnotation)
	if !ok || name == "" {
		return "", errors.New("scaledObject name is not specified")
	}
	return name, nil
}

// written puts a figure in the words of the version.
func written(v *external_metrics.ExternalMetricValue) v1beta1.ExternalMetricValue {
	return v1beta1.ExternalMetricValue{
		MetricName: v.MetricName, MetricLabels: v.MetricLabels,
		Timestamp: v.Timestamp, WindowSeconds: v.WindowSeconds, Value: v.Value,
	}
}

// fail answers by an error's own status, or as upstream's API server does by its words.
func (s server) fail(w http.ResponseWriter, err error) {
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: err.Error()}
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status = known.Status()
	}
	s.Fail(w, status)
}

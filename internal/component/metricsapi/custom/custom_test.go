package custom_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/client/custom_metrics"

	"ebb.dev/ebb/internal/component/metricsapi/custom"
	"ebb.dev/ebb/internal/platform/demand"
)

// pods is what a test's cluster holds.
type pods []*corev1.Pod

func (p pods) Pods(namespace string, s labels.Selector) (out []*corev1.Pod, _ error) {
	for _, pod := range p {
		if pod.Namespace == namespace && s.Matches(labels.Set(pod.Labels)) {
			out = append(out, pod)
		}
	}
	return out, nil
}

func instance(revision, name string, ready corev1.ConditionStatus) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"serving.knative.dev/revision": revision, "pod": name}}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return pod
}

var (
	counted = types.NamespacedName{Namespace: "shop", Name: "counted"}
	scaled  = types.NamespacedName{Namespace: "shop", Name: "scaled"}
)

// serve answers for one revision whose requests are counted and one that the autoscaler scales, and
// returns the client that a HorizontalPodAutoscaler asks with.
func serve(t *testing.T, book *demand.Book) custom_metrics.CustomMetricsClient {
	t.Helper()
	gauge := custom.NewGauge(book, func(rev types.NamespacedName) (string, custom.Reading, bool) {
		return custom.Concurrency, custom.Reading{Value: 7, Window: time.Minute}, rev == scaled
	})
	handler := custom.New(custom.Config{Log: slog.New(slog.DiscardHandler), Gauge: gauge, Objects: pods{
		instance("counted", "a", corev1.ConditionTrue), instance("counted", "b", corev1.ConditionTrue),
		instance("counted", "starting", corev1.ConditionFalse), instance("scaled", "c", corev1.ConditionTrue),
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "stranger"}},
	}})
	mux := http.NewServeMux()
	mux.Handle("/", handler)
	mux.HandleFunc("/apis", func(w http.ResponseWriter, _ *http.Request) { // the API server's part
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":%q,"versions":[{"groupVersion":"%[1]s/v1beta2","version":"v1beta2"}],"preferredVersion":{"groupVersion":"%[1]s/v1beta2","version":"v1beta2"}}]}`, custom.Group)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL, QPS: -1}
	names, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	mapper := testrestmapper.TestOnlyStaticRESTMapper(clientscheme.Scheme)
	return custom_metrics.NewForConfig(config, mapper, custom_metrics.NewAvailableAPIsGetter(names))
}

func TestEachPodHasItsShare(t *testing.T) {
	book := demand.NewBook()
	now := time.Now()
	for range 6 {
		book.Meter(counted).In(now.Add(-time.Second))
	}
	client := serve(t, book).NamespacedMetrics("shop")
	of := func(revision string) labels.Selector {
		return labels.SelectorFromSet(labels.Set{"serving.knative.dev/revision": revision})
	}
	pod := schema.GroupKind{Kind: "Pod"}
	tests := map[string]struct {
		selector labels.Selector
		metric   string
		want     map[string]float64
	}{
		"counted requests, by two pods":      {of("counted"), "concurrency", map[string]float64{"a": 3, "b": 3}},
		"one of the two pods":                {labels.SelectorFromSet(labels.Set{"pod": "b"}), "concurrency", map[string]float64{"b": 3}},
		"requests a second, by two pods":     {of("counted"), "rps", map[string]float64{"a": 3, "b": 3}},
		"what the autoscaler averages":       {of("scaled"), "concurrency", map[string]float64{"c": 7}},
		"what the autoscaler does not count": {of("scaled"), "rps", nil},
		"a metric of somebody else's":        {of("counted"), "queue-length", nil},
		"pods of nobody":                     {of("none"), "concurrency", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			list, err := client.GetForObjects(pod, tt.selector, tt.metric, labels.Everything())
			if tt.want == nil {
				if !apierrors.IsNotFound(err) {
					t.Fatalf("%+v, %v, want not found", list, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, item := range list.Items {
				got[item.DescribedObject.Name] = item.Value.AsApproximateFloat64()
			}
			for pod, want := range tt.want {
				if value := got[pod]; len(got) != len(tt.want) || value < want*0.8 || value > want*1.2 {
					t.Errorf("values %v, want about %v", got, tt.want)
				}
			}
		})
	}
}

func TestAMeterIsReadOnceForAllWhoAskAtATime(t *testing.T) {
	book := demand.NewBook()
	meter := book.Meter(counted)
	gauge := custom.NewGauge(book, func(types.NamespacedName) (string, custom.Reading, bool) { return "", custom.Reading{}, false })
	now := time.Now()
	for range 4 {
		meter.In(now.Add(-2 * time.Second))
		meter.Out(now)
	}
	first, _ := gauge.Read(counted, custom.RPS)
	again, _ := gauge.Read(counted, custom.RPS)
	if first.Value < 1.5 || first.Value > 2.5 || again != first {
		t.Errorf("rps %v, then %v, want 2 both times", first, again)
	}
	if quiet, ok := gauge.Read(types.NamespacedName{Namespace: "shop", Name: "quiet"}, custom.RPS); !ok || quiet.Value != 0 {
		t.Errorf("a quiet revision reads %v, %v", quiet, ok)
	}
}

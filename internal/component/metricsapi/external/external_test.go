package external_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/external_metrics"
	client "k8s.io/metrics/pkg/client/external_metrics"

	"ebb.dev/ebb/internal/component/metricsapi/external"
)

// figures knows one metric of one object.
type figures struct{ taken time.Time }

func (f figures) Metric(_ context.Context, namespace, object, metric string) ([]external_metrics.ExternalMetricValue, error) {
	switch {
	case metric == "s1-broken":
		return nil, errors.New("the server hangs up")
	case namespace != "shop" || object != "orders" || metric != "s0-kafka-orders":
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: external.Group, Resource: metric}, object)
	}
	return []external_metrics.ExternalMetricValue{{MetricName: metric, Timestamp: metav1.NewTime(f.taken), Value: resource.MustParse("12500m")}}, nil
}

func serve(t *testing.T, values external.Values) *rest.Config {
	t.Helper()
	server := httptest.NewServer(external.New(external.Config{Values: func() external.Values { return values }, Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, QPS: -1}
}

func TestAHorizontalPodAutoscalerFindsItsMetric(t *testing.T) {
	taken := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	asks, err := client.NewForConfig(serve(t, figures{taken}))
	if err != nil {
		t.Fatal(err)
	}
	of := func(object string) labels.Selector {
		return labels.SelectorFromSet(labels.Set{"scaledobject.keda.sh/name": object})
	}
	tests := map[string]struct {
		metric   string
		selector labels.Selector
		want     string // part of the error
	}{
		"its metric":               {"s0-kafka-orders", of("orders"), ""},
		"no object named":          {"s0-kafka-orders", labels.Everything(), "scaledObject name is not specified"},
		"an object there is not":   {"s0-kafka-orders", of("nobody"), "not found"},
		"a metric there is not":    {"s0-cron", of("orders"), "not found"},
		"a trigger that is broken": {"s1-broken", of("orders"), "the server hangs up"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			list, err := asks.NamespacedMetrics("shop").List(tt.metric, tt.selector)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%+v, error %v, want %q", list, err, tt.want)
				}
				return
			}
			if err != nil || len(list.Items) != 1 {
				t.Fatalf("%+v, %v", list, err)
			}
			got := list.Items[0]
			if got.MetricName != tt.metric || got.Value.MilliValue() != 12500 || !got.Timestamp.Time.Equal(taken) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestTheAPIAnswersBeforeThereAreValues(t *testing.T) {
	config := serve(t, nil)
	names, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := names.ServerResourcesForGroupVersion(external.Group + "/" + external.Version)
	if err != nil {
		t.Fatal(err)
	}
	want := []metav1.APIResource{{Name: "externalmetrics", Namespaced: true, Kind: "ExternalMetricValueList", Verbs: metav1.Verbs{"get"}}}
	if diff := cmp.Diff(want, list.APIResources); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	asks, err := client.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	selector := labels.SelectorFromSet(labels.Set{"scaledobject.keda.sh/name": "orders"})
	if _, err := asks.NamespacedMetrics("shop").List("s0-kafka-orders", selector); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("error %v, want unavailable", err)
	}
}

package census_test

import (
	"strings"
	"testing"

	eventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/component/controller/census"
	"ebb.dev/ebb/internal/platform/kube"
)

func TestWhatThereIsIsCounted(t *testing.T) {
	at := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	two := []kedav1alpha1.ScaleTriggers{{Type: "cron"}, {Type: "kafka"}}
	paused := &kedav1alpha1.ScaledObject{ObjectMeta: at("shop", "paused")}
	paused.Status.Conditions = kedav1alpha1.Conditions{{Type: kedav1alpha1.ConditionPaused, Status: metav1.ConditionTrue}}
	first := &kedav1alpha1.ScaledObject{ObjectMeta: at("shop", "orders"), Spec: kedav1alpha1.ScaledObjectSpec{Triggers: two}}
	objects := ctrlfake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(
		paused, first,
		&kedav1alpha1.ScaledJob{ObjectMeta: at("batch", "bills"), Spec: kedav1alpha1.ScaledJobSpec{Triggers: two[:1]}},
		&kedav1alpha1.TriggerAuthentication{ObjectMeta: at("shop", "a")},
		&kedav1alpha1.ClusterTriggerAuthentication{ObjectMeta: at("", "c")},
		&eventingv1alpha1.CloudEventSource{ObjectMeta: at("shop", "e")},
		&eventingv1alpha1.ClusterCloudEventSource{ObjectMeta: at("", "e")},
	).Build()
	counted := census.New(t.Context(), objects)
	expect := func(want string) {
		t.Helper()
		if err := testutil.CollectAndCompare(counted, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	}
	expect(`# HELP keda_resource_registered_total Total number of KEDA custom resources per namespace for each custom resource type (CRD) registered.
# TYPE keda_resource_registered_total gauge
keda_resource_registered_total{namespace="batch",type="scaled_job"} 1
keda_resource_registered_total{namespace="default",type="cloudevent_source"} 1
keda_resource_registered_total{namespace="default",type="cluster_trigger_authentication"} 1
keda_resource_registered_total{namespace="shop",type="cloudevent_source"} 1
keda_resource_registered_total{namespace="shop",type="scaled_object"} 2
keda_resource_registered_total{namespace="shop",type="trigger_authentication"} 1
# HELP keda_scaled_object_paused Indicates whether a ScaledObject is paused (1), or not (0).
# TYPE keda_scaled_object_paused gauge
keda_scaled_object_paused{namespace="shop",scaledObject="orders"} 0
keda_scaled_object_paused{namespace="shop",scaledObject="paused"} 1
# HELP keda_trigger_registered_total Total number of triggers per trigger type registered.
# TYPE keda_trigger_registered_total gauge
keda_trigger_registered_total{type="cron"} 2
keda_trigger_registered_total{type="kafka"} 1
`)
	for _, gone := range []client.Object{first, paused} {
		if err := objects.Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
	}
	if err := testutil.CollectAndCompare(counted, strings.NewReader(""), "keda_scaled_object_paused"); err != nil {
		t.Error(err)
	}
}

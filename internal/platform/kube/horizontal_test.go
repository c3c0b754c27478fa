package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestHorizontalPodAutoscalersAreCachedSlim(t *testing.T) {
	active := autoscalingv2.HorizontalPodAutoscalerCondition{Type: autoscalingv2.ScalingActive, Status: "True", Reason: "ValidMetricFound"}
	in := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "shop", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 4},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			DesiredReplicas: 2, CurrentMetrics: []autoscalingv2.MetricStatus{{Type: autoscalingv2.ExternalMetricSourceType}},
			Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.AbleToScale}, active},
		},
	}
	want := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "shop"},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 4},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			DesiredReplicas: 2, Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{active},
		},
	}
	got, err := slimHorizontal(in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c := fake.NewClientBuilder().WithScheme(Scheme()).WithObjects(want).Build()
	if said, ok := ScalingActive(t.Context(), c, client.ObjectKeyFromObject(want)); !ok || said != active {
		t.Errorf("it says %+v, %v", said, ok)
	}
	if _, ok := ScalingActive(t.Context(), c, client.ObjectKey{Namespace: "shop", Name: "gone"}); ok {
		t.Error("one that is not there says something")
	}
}

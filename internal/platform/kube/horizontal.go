package kube

import (
	"context"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ScalingActive returns what a HorizontalPodAutoscaler says about whether it scales; false when it has
// said nothing yet, or cannot be read. From a manager's cache it costs no request.
func ScalingActive(ctx context.Context, from client.Reader, key types.NamespacedName) (autoscalingv2.HorizontalPodAutoscalerCondition, bool) {
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := from.Get(ctx, key, &h, client.UnsafeDisableDeepCopy); err != nil {
		return autoscalingv2.HorizontalPodAutoscalerCondition{}, false
	}
	return Scaling(&h)
}

// Scaling is what h says about whether it scales; false when it has said nothing yet.
func Scaling(h *autoscalingv2.HorizontalPodAutoscaler) (autoscalingv2.HorizontalPodAutoscalerCondition, bool) {
	i := slices.IndexFunc(h.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == autoscalingv2.ScalingActive
	})
	if i < 0 {
		return autoscalingv2.HorizontalPodAutoscalerCondition{}, false
	}
	return h.Status.Conditions[i], true
}

// slimHorizontal keeps of the status the numbers and whether it scales: the metrics' values change
// all the time and nobody reads them here.
func slimHorizontal(in any) (any, error) {
	h, ok := in.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return in, nil
	}
	h.ManagedFields = nil
	active, said := Scaling(h)
	h.Status.CurrentMetrics, h.Status.Conditions = nil, nil
	if said {
		h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{active}
	}
	return h, nil
}

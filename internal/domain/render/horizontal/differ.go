package horizontal

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Differs tells whether have is not what is wanted. What the API server fills in, and labels and
// annotations of others, are no difference.
func Differs(want, have *autoscalingv2.HorizontalPodAutoscaler) bool {
	return len(want.Spec.Metrics) != len(have.Spec.Metrics) ||
		!equality.Semantic.DeepEqual(filled(want.Spec.Behavior), filled(have.Spec.Behavior)) ||
		!equality.Semantic.DeepDerivative(spec(want), spec(have)) ||
		!equality.Semantic.DeepDerivative(want.Labels, have.Labels) ||
		want.Annotations == nil && have.Annotations != nil ||
		!equality.Semantic.DeepDerivative(want.Annotations, have.Annotations) ||
		!equality.Semantic.DeepEqual(metav1.GetControllerOf(want), metav1.GetControllerOf(have))
}

// spec is the object's without the behaviour, which is compared whole.
func spec(h *autoscalingv2.HorizontalPodAutoscaler) autoscalingv2.HorizontalPodAutoscalerSpec {
	out := h.Spec
	out.Behavior = nil
	return out
}

// filled completes a behaviour by Kubernetes' defaults.
func filled(b *autoscalingv2.HorizontalPodAutoscalerBehavior) *autoscalingv2.HorizontalPodAutoscalerBehavior {
	if b == nil {
		return nil
	}
	const period = 15
	percent := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: period}
	pods := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: period}
	up := autoscalingv2.HPAScalingRules{
		StabilizationWindowSeconds: new(int32), Policies: []autoscalingv2.HPAScalingPolicy{pods, percent},
	}
	down := autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{percent}}
	return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: over(up, b.ScaleUp), ScaleDown: over(down, b.ScaleDown)}
}

// over lays rules over the default ones.
func over(base autoscalingv2.HPAScalingRules, rules *autoscalingv2.HPAScalingRules) *autoscalingv2.HPAScalingRules {
	base.SelectPolicy = new(autoscalingv2.MaxChangePolicySelect)
	if rules == nil {
		return &base
	}
	if rules.SelectPolicy != nil {
		base.SelectPolicy = rules.SelectPolicy
	}
	if rules.StabilizationWindowSeconds != nil {
		base.StabilizationWindowSeconds = rules.StabilizationWindowSeconds
	}
	if rules.Policies != nil {
		base.Policies = rules.Policies
	}
	base.Tolerance = rules.Tolerance
	return &base
}

// Package horizontal renders the HorizontalPodAutoscaler of a ScaledObject as KEDA does: tools look at
// its names, labels and metrics.
package horizontal

import (
	"maps"
	"strings"
	"unicode"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Version is the release of KEDA whose objects these are.
const Version = "2.21.0"

// longest is how long the value of a label may be.
const longest = 63

// Name is what a ScaledObject's HorizontalPodAutoscaler is to be called.
func Name(so *kedav1alpha1.ScaledObject) string {
	if a := so.Spec.Advanced; a != nil && a.HorizontalPodAutoscalerConfig != nil && a.HorizontalPodAutoscalerConfig.Name != "" {
		return a.HorizontalPodAutoscalerConfig.Name
	}
	return "keda-hpa-" + so.Name
}

// Object returns the HorizontalPodAutoscaler that scales target by metrics.
func Object(so *kedav1alpha1.ScaledObject, target kedav1alpha1.GroupVersionKindResource, metrics []autoscalingv2.MetricSpec) *autoscalingv2.HorizontalPodAutoscaler {
	owner := metav1.NewControllerRef(so, kedav1alpha1.SchemeGroupVersion.WithKind("ScaledObject"))
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name:            Name(so),
			Namespace:       so.Namespace,
			Labels:          labels(so),
			Annotations:     maps.Clone(so.Annotations),
			OwnerReferences: []metav1.OwnerReference{*owner},
		},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
				Kind: target.Kind, Name: so.Spec.ScaleTargetRef.Name, APIVersion: target.GroupVersion().String(),
			},
			MinReplicas: new(*so.GetHPAMinReplicas()),
			MaxReplicas: so.GetHPAMaxReplicas(),
			Metrics:     metrics,
			Behavior:    behavior(so),
		},
	}
}

// labels are KEDA's and those of the ScaledObject, which win, without the excluded ones.
func labels(so *kedav1alpha1.ScaledObject) map[string]string {
	out := map[string]string{
		"app.kubernetes.io/name":       labelName(Name(so)),
		"app.kubernetes.io/version":    Version,
		"app.kubernetes.io/part-of":    so.Name,
		"app.kubernetes.io/managed-by": "keda-operator",
	}
	excluded := map[string]bool{}
	for key := range strings.SplitSeq(so.Annotations[kedav1alpha1.ScaledObjectExcludedLabelsAnnotation], ",") {
		excluded[key] = true
	}
	for key, value := range so.Labels {
		if !excluded[key] {
			out[key] = value
		}
	}
	return out
}

// labelName cuts a name so that it can be a label's value, which ends in a letter or digit.
func labelName(name string) string {
	if len(name) <= longest {
		return name
	}
	return strings.TrimRightFunc(name[:longest], func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
}

// behavior is the configured one, with a paused direction disabled.
func behavior(so *kedav1alpha1.ScaledObject) *autoscalingv2.HorizontalPodAutoscalerBehavior {
	var out *autoscalingv2.HorizontalPodAutoscalerBehavior
	if a := so.Spec.Advanced; a != nil && a.HorizontalPodAutoscalerConfig != nil {
		out = a.HorizontalPodAutoscalerConfig.Behavior.DeepCopy()
	}
	in, outward := so.NeedToPauseScaleIn(), so.NeedToPauseScaleOut()
	if out == nil && (in || outward) {
		out = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	}
	if in {
		out.ScaleDown = disabled(out.ScaleDown)
	}
	if outward {
		out.ScaleUp = disabled(out.ScaleUp)
	}
	return out
}

func disabled(rules *autoscalingv2.HPAScalingRules) *autoscalingv2.HPAScalingRules {
	if rules == nil {
		rules = &autoscalingv2.HPAScalingRules{}
	}
	rules.SelectPolicy = new(autoscalingv2.DisabledPolicySelect)
	return rules
}

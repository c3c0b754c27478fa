package scaledobject

import (
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
)

// A happening is an event to be told.
type happening struct {
	kind            string
	cloud           kedaeventingv1alpha1.CloudEventType
	reason, message string
}

// failed is the type of CloudEvent of all that goes wrong.
const failed = kedaeventingv1alpha1.ScaledObjectFailedType

// tell lists what happened between two statuses.
func tell(before, after *kedav1alpha1.ScaledObject, p *problem) []happening {
	var out []happening
	was, is := before.Status.Conditions, after.Status.Conditions
	switch wasPaused, paused := condition(was, kedav1alpha1.ConditionPaused), condition(is, kedav1alpha1.ConditionPaused); {
	case !wasPaused.IsTrue() && paused.IsTrue():
		out = append(out, happening{
			corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledObjectPausedType,
			kedav1alpha1.ScaledObjectConditionPausedReason, kedav1alpha1.ScaledObjectConditionPausedMessage,
		})
	case wasPaused.IsTrue() && !paused.IsTrue():
		out = append(out, happening{corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledObjectUnpausedType, unpausedReason, unpausedMessage})
	}
	out = append(out, tellReady(condition(was, kedav1alpha1.ConditionReady), condition(is, kedav1alpha1.ConditionReady), p)...)
	switch wasFallback, fallback := condition(was, kedav1alpha1.ConditionFallback), condition(is, kedav1alpha1.ConditionFallback); {
	case !wasFallback.IsTrue() && fallback.IsTrue():
		out = append(out, happening{corev1.EventTypeNormal, "", "ScaledObjectFallbackActivated", "ScaledObject fallback is active"})
	case wasFallback.IsTrue() && !fallback.IsTrue():
		out = append(out, happening{corev1.EventTypeNormal, "", "ScaledObjectFallbackDeactivated", "ScaledObject fallback is no longer active"})
	}
	return out
}

// tellReady tells a problem once, and when it is over. What the engine says of triggers that come and
// go is not told here.
func tellReady(was, is *kedav1alpha1.Condition, p *problem) []happening {
	if p != nil {
		if was != nil && *was == *is {
			return nil
		}
		return append(p.details, happening{corev1.EventTypeWarning, failed, p.reason, p.message})
	}
	fresh := was == nil || was.Reason == "" || was.Reason == reasonCheckFailed || was.Reason == reasonNotBuiltIn
	if is.IsTrue() && !was.IsTrue() && fresh {
		return []happening{{
			corev1.EventTypeNormal, kedaeventingv1alpha1.ScaledObjectReadyType,
			kedav1alpha1.ScaledObjectConditionReadySuccessReason, "ScaledObject is ready for scaling",
		}}
	}
	return nil
}

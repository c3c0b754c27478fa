package scaledobject

import (
	"maps"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/platform/kube"
)

// asked lets pass what changes what is asked for: statuses are written here.
var asked = predicate.Or(
	predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{},
)

// shown lets pass changes of what HorizontalPodAutoscalers are made to be, and of whether they scale.
var shown = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*autoscalingv2.HorizontalPodAutoscaler)
	after, same := e.ObjectNew.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok || !same {
		return false
	}
	was, _ := kube.Scaling(before)
	is, _ := kube.Scaling(after)
	return was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message ||
		!maps.Equal(before.Labels, after.Labels) || !maps.Equal(before.Annotations, after.Annotations) ||
		!equality.Semantic.DeepEqual(before.OwnerReferences, after.OwnerReferences) ||
		!equality.Semantic.DeepEqual(before.Spec, after.Spec)
}}

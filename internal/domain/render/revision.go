package render

import (
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Revision returns the Revision that a Configuration's present template asks for.
func Revision(cfg *servingv1.Configuration, now time.Time) *servingv1.Revision {
	template := cfg.Spec.Template.DeepCopy()
	rev := &servingv1.Revision{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	rev.Name, rev.Namespace = RevisionName(cfg), cfg.Namespace
	rev.Labels = with(rev.Labels, RevisionLabels(cfg))

	added := map[string]string{}
	if creator, ok := cfg.Annotations[serving.UpdaterAnnotation]; ok {
		added[serving.CreatorAnnotation] = creator
	}
	state := servingv1.RoutingStatePending
	if routes, ok := cfg.Annotations[serving.RoutesAnnotationKey]; ok {
		added[serving.RoutesAnnotationKey] = routes
		state = servingv1.RoutingStateActive
	}
	rev.Annotations = with(rev.Annotations, added)
	rev.SetRoutingState(state, now)
	rev.OwnerReferences = []metav1.OwnerReference{*kmeta.NewControllerRef(cfg)}
	return rev
}

// RevisionName is the name the template brings, or one counted by the generation.
func RevisionName(cfg *servingv1.Configuration) string {
	if name := cfg.Spec.Template.Name; name != "" {
		return name
	}
	return kmeta.ChildName(cfg.Name, fmt.Sprintf("-%05d", cfg.Generation))
}

// RevisionLabels are the labels by which a Configuration's Revisions are found.
func RevisionLabels(cfg *servingv1.Configuration) map[string]string {
	labels := map[string]string{
		serving.ConfigurationLabelKey:           cfg.Name,
		serving.ConfigurationUIDLabelKey:        string(cfg.UID),
		serving.ConfigurationGenerationLabelKey: strconv.FormatInt(cfg.Generation, 10),
		serving.ServiceLabelKey:                 cfg.Labels[serving.ServiceLabelKey],
		serving.ServiceUIDLabelKey:              cfg.Labels[serving.ServiceUIDLabelKey],
	}
	for k, v := range labels {
		if v == "" {
			delete(labels, k)
		}
	}
	return labels
}

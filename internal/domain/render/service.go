package render

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Configuration returns the Configuration a Service stands for. existing is the one there is, or
// nil: the routes noted on it stay noted.
func Configuration(svc *servingv1.Service, existing *servingv1.Configuration) *servingv1.Configuration {
	annotations := without(svc.Annotations, func(key string) bool {
		return key == corev1.LastAppliedConfigAnnotation || slices.Contains(serving.RolloutDurationAnnotation, key)
	})
	var noted map[string]string
	if existing != nil {
		noted = existing.Annotations
	}
	annotations[serving.RoutesAnnotationKey] = WithRoute(noted, svc.Name, true)
	return &servingv1.Configuration{
		ObjectMeta: metav1.ObjectMeta{
			Name:            svc.Name,
			Namespace:       svc.Namespace,
			OwnerReferences: ownedBy(svc),
			Labels: with(svc.Labels, map[string]string{
				serving.ServiceLabelKey:    svc.Name,
				serving.ServiceUIDLabelKey: string(svc.UID),
			}),
			Annotations: annotations,
		},
		Spec: *svc.Spec.ConfigurationSpec.DeepCopy(),
	}
}

// Route returns the Route a Service stands for. Traffic to the latest revision is traffic to the
// Service's Configuration.
func Route(svc *servingv1.Service) *servingv1.Route {
	r := &servingv1.Route{
		ObjectMeta: metav1.ObjectMeta{
			Name:            svc.Name,
			Namespace:       svc.Namespace,
			OwnerReferences: ownedBy(svc),
			Labels:          with(svc.Labels, map[string]string{serving.ServiceLabelKey: svc.Name}),
			Annotations: without(svc.Annotations, func(key string) bool {
				return key == corev1.LastAppliedConfigAnnotation
			}),
		},
		Spec: *svc.Spec.RouteSpec.DeepCopy(),
	}
	for i := range r.Spec.Traffic {
		if t := &r.Spec.Traffic[i]; t.RevisionName == "" {
			t.ConfigurationName = svc.Name
		}
	}
	return r
}

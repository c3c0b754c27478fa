package facade

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	cachingv1alpha1 "knative.dev/caching/pkg/apis/caching/v1alpha1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube"
)

// published lists the kinds that are written here.
func published() []client.Object {
	return []client.Object{
		&netv1alpha1.ServerlessService{}, &corev1.Service{}, &discoveryv1.EndpointSlice{},
		&autoscalingv1alpha1.Metric{}, &cachingv1alpha1.Image{},
	}
}

// newCache returns a cache of what was published, without what is never compared: there is one of each
// kind for every Revision.
func newCache(m ctrl.Manager) (cache.Cache, error) {
	ours, err := labels.NewRequirement(render.ServerlessLabel, selection.Exists, nil)
	if err != nil {
		return nil, fmt.Errorf("selecting by label %s: %w", render.ServerlessLabel, err)
	}
	selector := labels.NewSelector().Add(*ours)
	c, err := cache.New(kube.Unlimited(m.GetConfig()), cache.Options{
		HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper(),
		DefaultTransform: slim,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Service{}:            {Label: selector},
			&discoveryv1.EndpointSlice{}: {Label: selector},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of what is published: %w", err)
	}
	return c, nil
}

// slim keeps of an object's metadata its identity, its owner and the label by which it is found.
func slim(in any) (any, error) {
	o, ok := in.(client.Object)
	if !ok {
		return in, nil
	}
	o.SetManagedFields(nil)
	o.SetAnnotations(nil)
	kept := map[string]string{}
	maps.Copy(kept, o.GetLabels())
	maps.DeleteFunc(kept, func(key, _ string) bool {
		return key != serving.RevisionLabelKey && key != discoveryv1.LabelManagedBy
	})
	o.SetLabels(kept)
	return o, nil
}

package render

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cachingv1alpha1 "knative.dev/caching/pkg/apis/caching/v1alpha1"
	"knative.dev/pkg/kmeta"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Metric returns the object that shows what a Revision's scale is averaged over. target names the
// Service whose pods Knative would ask; it is empty where all requests are buffered anyway.
func Metric(pa *autoscalingv1alpha1.PodAutoscaler, stable, panicking time.Duration, target string) *autoscalingv1alpha1.Metric {
	return &autoscalingv1alpha1.Metric{
		ObjectMeta: metav1.ObjectMeta{
			Name:            pa.Name,
			Namespace:       pa.Namespace,
			Labels:          with(pa.Labels, nil),
			Annotations:     with(pa.Annotations, nil),
			OwnerReferences: ownedBy(pa),
		},
		Spec: autoscalingv1alpha1.MetricSpec{StableWindow: stable, PanicWindow: panicking, ScrapeTarget: target},
	}
}

// Images returns the objects that name a Revision's images, for who wants to pull them early.
func Images(rev *servingv1.Revision) []*cachingv1alpha1.Image {
	var out []*cachingv1alpha1.Image
	for _, list := range [][]servingv1.ContainerStatus{rev.Status.ContainerStatuses, rev.Status.InitContainerStatuses} {
		for _, c := range list {
			if c.ImageDigest == "" {
				continue
			}
			out = append(out, image(rev, c))
		}
	}
	return out
}

func image(rev *servingv1.Revision, c servingv1.ContainerStatus) *cachingv1alpha1.Image {
	return &cachingv1alpha1.Image{
		ObjectMeta: metav1.ObjectMeta{
			Name:            kmeta.ChildName(kmeta.ChildName(rev.Name, "-cache"), "-"+c.Name),
			Namespace:       rev.Namespace,
			Labels:          RevisionChildLabels(rev),
			OwnerReferences: ownedBy(rev),
		},
		Spec: cachingv1alpha1.ImageSpec{
			Image: c.ImageDigest, ServiceAccountName: rev.Spec.ServiceAccountName, ImagePullSecrets: rev.Spec.ImagePullSecrets,
		},
	}
}

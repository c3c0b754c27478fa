package render

import (
	"math"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/autoscaling"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// PodAutoscaler returns the object that shows how a Revision is scaled. ebb's autoscaler does not
// read it: it is for tools, and it remembers that the initial scale was once reached. class is the
// cluster's, for a Revision that names none.
func PodAutoscaler(rev *servingv1.Revision, reach autoscalingv1alpha1.ReachabilityType, class string) *autoscalingv1alpha1.PodAutoscaler {
	return &autoscalingv1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name:            rev.Name,
			Namespace:       rev.Namespace,
			Labels:          RevisionChildLabels(rev),
			Annotations:     scaling(without(rev.Annotations, routing), class),
			OwnerReferences: ownedBy(rev),
		},
		Spec: autoscalingv1alpha1.PodAutoscalerSpec{
			ContainerConcurrency: rev.Spec.GetContainerConcurrency(),
			ScaleTargetRef: corev1.ObjectReference{
				APIVersion: "apps/v1", Kind: "Deployment", Name: DeploymentName(rev.Name),
			},
			ProtocolType: rev.GetProtocol(),
			Reachability: reach,
		},
	}
}

// scaling completes annotations by the class and its metric, as Knative does on PodAutoscalers.
func scaling(annotations map[string]string, class string) map[string]string {
	if _, ok := annotations[autoscaling.ClassAnnotationKey]; !ok {
		annotations[autoscaling.ClassAnnotationKey] = class
	}
	if _, ok := annotations[autoscaling.MetricAnnotationKey]; !ok {
		annotations[autoscaling.MetricAnnotationKey] = autoscaling.Concurrency
		if annotations[autoscaling.ClassAnnotationKey] == autoscaling.HPA {
			annotations[autoscaling.MetricAnnotationKey] = autoscaling.CPU
		}
	}
	return annotations
}

// HorizontalPodAutoscaler returns what scales a Revision of class hpa, between bounds of which 0 is
// none. Kubernetes keeps one instance at least.
func HorizontalPodAutoscaler(pa *autoscalingv1alpha1.PodAutoscaler, least, most int32) *autoscalingv2.HorizontalPodAutoscaler {
	ref := pa.Spec.ScaleTargetRef
	least = max(least, 1)
	if most == 0 {
		most = math.MaxInt32
	}
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name:            pa.Name,
			Namespace:       pa.Namespace,
			Labels:          with(pa.Labels, nil),
			Annotations:     with(pa.Annotations, nil),
			OwnerReferences: ownedBy(pa),
		},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name},
			MinReplicas:    &least,
			MaxReplicas:    most,
			Metrics:        podMetrics(pa),
			Behavior:       windows(pa),
		},
	}
}

// podMetrics is what is aimed at: a share of the requested CPU, mebibytes of memory, or an average of
// any other metric over the pods. Without a target it is left to Kubernetes.
func podMetrics(pa *autoscalingv1alpha1.PodAutoscaler) []autoscalingv2.MetricSpec {
	target, ok := pa.Target()
	if !ok {
		return nil
	}
	switch metric := pa.Metric(); metric {
	case autoscaling.CPU:
		percent := int32(math.Ceil(target))
		return []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
			},
		}}
	case autoscaling.Memory:
		return []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceMemory,
				Target: average(resource.NewQuantity(int64(target)<<20, resource.BinarySI)),
			},
		}}
	default:
		return []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.PodsMetricSourceType,
			Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: metric},
				Target: average(resource.NewQuantity(int64(target), resource.DecimalSI)),
			},
		}}
	}
}

func average(q *resource.Quantity) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: q}
}

// windows has both directions wait for the annotated window.
func windows(pa *autoscalingv1alpha1.PodAutoscaler) *autoscalingv2.HorizontalPodAutoscalerBehavior {
	window, ok := pa.Window()
	if !ok {
		return nil
	}
	up, down := int32(window.Seconds()), int32(window.Seconds())
	return &autoscalingv2.HorizontalPodAutoscalerBehavior{
		ScaleUp:   &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &up},
		ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &down},
	}
}

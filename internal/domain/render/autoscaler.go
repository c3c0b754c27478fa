package render

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// PodAutoscaler returns the object that shows how a Revision is scaled. ebb's autoscaler does not
// read it: it is for tools, and it remembers that the initial scale was once reached.
func PodAutoscaler(rev *servingv1.Revision, reach autoscalingv1alpha1.ReachabilityType) *autoscalingv1alpha1.PodAutoscaler {
	return &autoscalingv1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name:            rev.Name,
			Namespace:       rev.Namespace,
			Labels:          RevisionChildLabels(rev),
			Annotations:     without(rev.Annotations, routing),
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

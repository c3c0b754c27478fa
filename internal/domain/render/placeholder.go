package render

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netapi "knative.dev/networking/pkg/apis/networking"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Placeholder returns the Kubernetes Service by which other pods reach a Route, or one of its tags,
// under name: an alias of the gateway's own Service.
func Placeholder(route *servingv1.Route, name, gateway string) *corev1.Service {
	h2c := netapi.AppProtocolH2C
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name,
			Namespace:       route.Namespace,
			OwnerReferences: ownedBy(route),
			// The visibility label is left to the user: on this object it hides one tag alone.
			Labels: with(without(route.Labels, func(key string) bool { return key == netapi.VisibilityLabelKey }),
				map[string]string{serving.RouteLabelKey: route.Name}),
			Annotations: with(route.Annotations, nil),
		},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeExternalName,
			ExternalName:    gateway,
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name:        netapi.ServicePortNameH2C,
				AppProtocol: &h2c,
				Protocol:    corev1.ProtocolTCP,
				Port:        80,
				TargetPort:  intstr.FromInt32(80),
			}},
		},
	}
}

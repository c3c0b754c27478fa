package admission_test

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deployment is a target with one container of its name, which asks for the resources.
func deployment(name string, requests corev1.ResourceList) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: name, Resources: corev1.ResourceRequirements{Requests: requests}}}
	return d
}

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

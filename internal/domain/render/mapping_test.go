package render_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"

	"ebb.dev/ebb/internal/domain/render"
)

func TestObjectsOfADomainMapping(t *testing.T) {
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{
		Name: "shop.example.com", Namespace: "shop", UID: "mapping-uid",
		Labels: map[string]string{"team": "a"},
		Annotations: map[string]string{
			"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}",
			"networking.knative.dev/ingress-class": "its-own",
		},
	}}
	ingress := render.MappingIngress(dm, render.MappingPlan{
		Class: "its-own", Host: "hello.shop.svc.cluster.local", Service: "hello", Option: netv1alpha1.HTTPOptionEnabled,
	})
	golden(t, "domainmapping-ingress", ingress)
	if got := render.MappingTarget(ingress); got != "hello.shop.svc.cluster.local" {
		t.Errorf("target %q", got)
	}
	if claim := render.Claim(dm); claim.Name != dm.Name || claim.Spec.Namespace != "shop" || claim.OwnerReferences != nil {
		t.Errorf("claim %+v", claim)
	}
}

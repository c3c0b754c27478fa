package render

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netheader "knative.dev/networking/pkg/http/header"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/serving"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
)

// Claim returns the reservation of a DomainMapping's name for its namespace. Nobody owns it: it is
// of the whole cluster, and goes with the DomainMapping by a finalizer.
func Claim(dm *servingv1beta1.DomainMapping) *netv1alpha1.ClusterDomainClaim {
	return &netv1alpha1.ClusterDomainClaim{
		ObjectMeta: metav1.ObjectMeta{Name: dm.Name},
		Spec:       netv1alpha1.ClusterDomainClaimSpec{Namespace: dm.Namespace},
	}
}

// A MappingPlan is what a DomainMapping's Ingress says beyond the DomainMapping.
type MappingPlan struct {
	// Class says who serves it.
	Class string
	// Host is the target's name in the cluster, Service the first part of it.
	Host, Service string
	// TLS lists the certificates of the host.
	TLS []netv1alpha1.IngressTLS
	// Option says what is done with plain HTTP.
	Option netv1alpha1.HTTPOption
}

// MappingIngressName is the name of a DomainMapping's Ingress.
func MappingIngressName(dm *servingv1beta1.DomainMapping) string {
	return kmeta.ChildName(dm.Name, "")
}

// MappingIngress returns the Ingress that shows what a DomainMapping is to the network.
func MappingIngress(dm *servingv1beta1.DomainMapping, p MappingPlan) *netv1alpha1.Ingress {
	return &netv1alpha1.Ingress{
		ObjectMeta: metav1.ObjectMeta{
			Name:            MappingIngressName(dm),
			Namespace:       dm.Namespace,
			OwnerReferences: ownedBy(dm),
			Labels: with(dm.Labels, map[string]string{
				serving.DomainMappingUIDLabelKey:       string(dm.UID),
				serving.DomainMappingNamespaceLabelKey: dm.Namespace,
			}),
			Annotations: with(map[string]string{netapi.IngressClassAnnotationKey: p.Class}, without(dm.Annotations, func(key string) bool {
				return key == corev1.LastAppliedConfigAnnotation ||
					key == netapi.IngressClassAnnotationAltKey || key == netapi.CertificateClassAnnotationAltKey
			})),
		},
		Spec: netv1alpha1.IngressSpec{
			TLS: p.TLS, HTTPOption: p.Option,
			Rules: []netv1alpha1.IngressRule{{
				Hosts: []string{dm.Name}, Visibility: netv1alpha1.IngressVisibilityExternalIP,
				HTTP: &netv1alpha1.HTTPIngressRuleValue{Paths: []netv1alpha1.HTTPIngressPath{{
					RewriteHost: p.Host,
					Splits: []netv1alpha1.IngressBackendSplit{{
						Percent: 100, AppendHeaders: map[string]string{netheader.OriginalHostKey: dm.Name},
						IngressBackend: netv1alpha1.IngressBackend{
							ServiceNamespace: dm.Namespace, ServiceName: p.Service, ServicePort: intstr.FromInt32(80),
						},
					}},
				}}},
			}},
		},
	}
}

// MappingTarget reads back the target's name in the cluster; empty when the Ingress has none.
func MappingTarget(ingress *netv1alpha1.Ingress) string {
	for _, rule := range ingress.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, path := range rule.HTTP.Paths {
			if path.RewriteHost != "" {
				return path.RewriteHost
			}
		}
	}
	return ""
}

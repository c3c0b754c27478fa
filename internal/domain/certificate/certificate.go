// Package certificate says which certificates Routes, DomainMappings and namespaces want, what those
// are called, and what they mean for a status: Knative's Certificate objects as values.
//
// Names, labels and annotations are upstream's, so tools that look for them find them.
package certificate

import (
	"hash/adler32"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
)

// Class is the certificate class whose certificates ebb's own authority signs.
const Class = "ebb.certificate.networking.knative.dev"

// localDomain is the domain of names that are known inside the cluster only.
const localDomain = "svc.cluster.local"

// unshared are annotations of an owner that its Certificates do not get: the manifest of somebody
// else, and second spellings of what is written in the first.
var unshared = map[string]bool{
	corev1.LastAppliedConfigAnnotation:      true,
	netapi.CertificateClassAnnotationAltKey: true,
	netapi.IngressClassAnnotationAltKey:     true,
}

// OfRoute is the certificate for the public host of one of a Route's tags ("" is the Route itself).
// The domain is the one the host was made with.
func OfRoute(route *servingv1.Route, tag, host, domain, class string) *netv1alpha1.Certificate {
	return public(route, serving.RouteLabelKey, netv1alpha1.CertificateSpec{
		DNSNames: []string{host}, Domain: domain, SecretName: routeName(route, tag),
	}, class)
}

// OfDomain is the certificate for a DomainMapping's host.
func OfDomain(dm *servingv1beta1.DomainMapping, class string) *netv1alpha1.Certificate {
	return public(dm, serving.DomainMappingUIDLabelKey, netv1alpha1.CertificateSpec{
		DNSNames: []string{dm.Name}, Domain: dm.Name, SecretName: kmeta.ChildName(dm.Name, ""),
	}, class)
}

// OfRouteLocal is the certificate for the names that one of a Route's tags has inside the cluster.
func OfRouteLocal(route *servingv1.Route, tag string, hosts []string, class string) *netv1alpha1.Certificate {
	return owned(route, serving.RouteLabelKey, netcfg.CertificateClusterLocalDomain, netv1alpha1.CertificateSpec{
		DNSNames: slices.Sorted(slices.Values(hosts)), Domain: localDomain, SecretName: routeName(route, tag) + "-local",
	}, class)
}

// OfNamespace is the certificate for all hosts of a namespace below one domain; its name is what
// follows the asterisk.
func OfNamespace(ns *corev1.Namespace, wildcard, domain, class string) *netv1alpha1.Certificate {
	name := strings.TrimPrefix(wildcard, "*.")
	return &netv1alpha1.Certificate{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: ns.Name,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ns, corev1.SchemeGroupVersion.WithKind("Namespace"))},
			Annotations:     map[string]string{netapi.CertificateClassAnnotationKey: class},
			Labels:          map[string]string{netapi.WildcardCertDomainLabelKey: domain},
		},
		Spec: netv1alpha1.CertificateSpec{DNSNames: []string{wildcard}, SecretName: name},
	}
}

func public(owner kmeta.OwnerRefableAccessor, label string, spec netv1alpha1.CertificateSpec, class string) *netv1alpha1.Certificate {
	return owned(owner, label, netcfg.CertificateExternalDomain, spec, class)
}

// owned is a certificate with what all of an owner's have alike; it is called as its Secret.
func owned(owner kmeta.OwnerRefableAccessor, label string, kind netcfg.CertificateType, spec netv1alpha1.CertificateSpec, class string) *netv1alpha1.Certificate {
	annotations := map[string]string{netapi.CertificateClassAnnotationKey: class}
	maps.Copy(annotations, owner.GetAnnotations())
	maps.DeleteFunc(annotations, func(key, _ string) bool { return unshared[key] })
	return &netv1alpha1.Certificate{
		ObjectMeta: metav1.ObjectMeta{
			Name: spec.SecretName, Namespace: owner.GetNamespace(),
			OwnerReferences: []metav1.OwnerReference{*kmeta.NewControllerRef(owner)},
			Annotations:     annotations,
			Labels:          map[string]string{label: owner.GetName(), netapi.CertificateTypeLabelKey: string(kind)},
		},
		Spec: spec,
	}
}

// routeName is by the Route's UID, since certificates outlive a name; a tag is hashed, for length.
func routeName(route *servingv1.Route, tag string) string {
	name := "route-" + string(route.UID)
	if tag != "" {
		name += "-" + strconv.FormatUint(uint64(adler32.Checksum([]byte(tag))), 10)
	}
	return name
}

// Update returns what has to be written to make have as wanted, nil when nothing has.
func Update(want, have *netv1alpha1.Certificate) *netv1alpha1.Certificate {
	if equality.Semantic.DeepEqual(want.Spec, have.Spec) &&
		equality.Semantic.DeepEqual(want.Annotations, have.Annotations) &&
		equality.Semantic.DeepEqual(want.Labels, have.Labels) {
		return nil
	}
	out := have.DeepCopy()
	out.Spec, out.Annotations, out.Labels = want.Spec, want.Annotations, want.Labels
	return out
}

// ClassOf is the class of the certificates of an object with these annotations.
func ClassOf(network *netcfg.Config, annotations map[string]string) string {
	if class := netapi.GetCertificateClass(annotations); class != "" {
		return class
	}
	return network.DefaultCertificateClass
}

// KindOf is what a certificate is for; one without a label is for public hosts.
func KindOf(c *netv1alpha1.Certificate) netcfg.CertificateType {
	if kind, ok := c.Labels[netapi.CertificateTypeLabelKey]; ok {
		return netcfg.CertificateType(kind)
	}
	return netcfg.CertificateExternalDomain
}

// External tells whether public hosts of an object with these annotations are to have certificates.
func External(network *netcfg.Config, annotations map[string]string) bool {
	if !network.ExternalDomainTLS {
		return false
	}
	off, err := strconv.ParseBool(netapi.GetDisableExternalDomainTLS(annotations))
	return err != nil || !off
}

// Local tells whether names inside the cluster are to have certificates.
func Local(network *netcfg.Config) bool {
	return network.ClusterLocalDomainTLS == netcfg.EncryptionEnabled
}

// Redirected tells whether plain requests to public hosts of an object with these annotations are to
// be sent to https. An annotation that means nothing is as none.
func Redirected(network *netcfg.Config, annotations map[string]string) bool {
	return HTTPOption(network, annotations) == netv1alpha1.HTTPOptionRedirected
}

// HTTPOption is the same for an Ingress.
func HTTPOption(network *netcfg.Config, annotations map[string]string) netv1alpha1.HTTPOption {
	protocol := netcfg.HTTPProtocol(strings.ToLower(netapi.GetHTTPProtocol(annotations)))
	if protocol != netcfg.HTTPEnabled && protocol != netcfg.HTTPRedirected {
		protocol = network.HTTPProtocol
	}
	switch protocol {
	case netcfg.HTTPRedirected:
		return netv1alpha1.HTTPOptionRedirected
	case netcfg.HTTPEnabled:
		return netv1alpha1.HTTPOptionEnabled
	default: // disabled, which upstream gives up, too
		return ""
	}
}

// Wildcard finds among a namespace's certificates one whose wildcard covers the host.
func Wildcard(all []*netv1alpha1.Certificate, host string) *netv1alpha1.Certificate {
	_, parent, ok := strings.Cut(host, ".")
	if !ok {
		return nil
	}
	for _, c := range all {
		if slices.Contains(c.Spec.DNSNames, "*."+parent) {
			return c
		}
	}
	return nil
}

// SecretOf is where a certificate's key is.
func SecretOf(c *netv1alpha1.Certificate) types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Spec.SecretName}
}

// IngressTLS is a certificate as an Ingress names it.
func IngressTLS(c *netv1alpha1.Certificate, hosts []string) netv1alpha1.IngressTLS {
	return netv1alpha1.IngressTLS{Hosts: hosts, SecretName: c.Spec.SecretName, SecretNamespace: c.Namespace}
}

package render

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netheader "knative.dev/networking/pkg/http/header"
	"knative.dev/pkg/kmeta"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// Headers by which an ingress tells its back end which revision is meant.
const (
	revisionHeader  = "Knative-Serving-Revision"
	namespaceHeader = "Knative-Serving-Namespace"
)

// A Backend is one revision's share of a host.
type Backend struct {
	// Revision has a Kubernetes Service of its name.
	Revision string
	// Percent of the requests, more than 0.
	Percent int
	// H2C says that the revision speaks HTTP/2 without TLS.
	H2C bool
}

// A Host is what one tag of a Route is called and who answers.
type Host struct {
	// Tag is empty for the Route itself.
	Tag string
	// Public names, the first of them in the Route's URL; none when it is cluster-local.
	Public []string
	// Local names, the longest first.
	Local []string
	// Backends share the requests.
	Backends []Backend
}

// An IngressPlan is what an Ingress says beyond its Route.
type IngressPlan struct {
	// Class says who serves it.
	Class string
	// Rollout is the state of gradual rollouts, as it is kept.
	Rollout string
	// Hosts are sorted by tag, so that the Route's own is the first.
	Hosts []Host
	// TLS lists the certificates of hosts.
	TLS []netv1alpha1.IngressTLS
	// Option says what is done with plain HTTP.
	Option netv1alpha1.HTTPOption
	// TagHeader lets a request header choose a tag on the Route's own host.
	TagHeader bool
	// InternalTLS says that revisions are spoken to by TLS.
	InternalTLS bool
}

// IngressName is the name of a Route's Ingress.
func IngressName(route *servingv1.Route) string { return kmeta.ChildName(route.Name, "") }

// Ingress returns the Ingress that shows what a Route is to the network. ebb's gateway doesn't read
// it: tools do, and it keeps the state of gradual rollouts.
func Ingress(route *servingv1.Route, p IngressPlan) *netv1alpha1.Ingress {
	annotations := with(map[string]string{
		netapi.IngressClassAnnotationKey: p.Class,
		netapi.RolloutAnnotationKey:      p.Rollout,
	}, without(route.Annotations, func(key string) bool {
		return key == corev1.LastAppliedConfigAnnotation ||
			key == netapi.IngressClassAnnotationAltKey || key == netapi.CertificateClassAnnotationAltKey
	}))
	if hosts := tagHosts(p.Hosts); hosts != "" {
		annotations[netapi.TagToHostAnnotationKey] = hosts
	}
	return &netv1alpha1.Ingress{
		ObjectMeta: metav1.ObjectMeta{
			Name:            IngressName(route),
			Namespace:       route.Namespace,
			OwnerReferences: ownedBy(route),
			Labels: with(route.Labels, map[string]string{
				serving.RouteLabelKey:          route.Name,
				serving.RouteNamespaceLabelKey: route.Namespace,
			}),
			Annotations: annotations,
		},
		Spec: netv1alpha1.IngressSpec{Rules: p.rules(route.Namespace), TLS: p.TLS, HTTPOption: p.Option},
	}
}

// tagHosts is the list of tags' hosts, in JSON; empty without tags.
func tagHosts(hosts []Host) string {
	out := map[string][]string{}
	for _, h := range hosts {
		if h.Tag != "" {
			out[h.Tag] = append(out[h.Tag], h.Local[0])
			out[h.Tag] = append(out[h.Tag], h.Public[:min(1, len(h.Public))]...)
		}
	}
	text, err := json.Marshal(out)
	if err != nil || len(out) == 0 {
		return "" // strings always have a JSON form
	}
	return string(text)
}

// rules are one for a tag's local names together and one for each public name.
func (p *IngressPlan) rules(namespace string) []netv1alpha1.IngressRule {
	var out []netv1alpha1.IngressRule
	for i := range p.Hosts {
		h := &p.Hosts[i]
		local := slices.Clone(h.Local)
		slices.Sort(local)
		out = append(out, p.rule(namespace, h, netv1alpha1.IngressVisibilityClusterLocal, local))
		for _, name := range h.Public {
			out = append(out, p.rule(namespace, h, netv1alpha1.IngressVisibilityExternalIP, []string{name}))
		}
	}
	return out
}

func (p *IngressPlan) rule(namespace string, h *Host, visibility netv1alpha1.IngressVisibility, names []string) netv1alpha1.IngressRule {
	path := p.path(namespace, h.Backends)
	var paths []netv1alpha1.HTTPIngressPath
	switch {
	case !p.TagHeader:
	case h.Tag != "":
		// The application sees the tag whichever way the request chose it.
		path.AppendHeaders = map[string]string{netheader.RouteTagKey: h.Tag}
	default:
		path.AppendHeaders = map[string]string{netheader.DefaultRouteKey: "true"}
		for _, other := range p.Hosts {
			if other.Tag == "" {
				continue
			}
			byHeader := p.path(namespace, other.Backends)
			byHeader.Headers = map[string]netv1alpha1.HeaderMatch{netheader.RouteTagKey: {Exact: other.Tag}}
			paths = append(paths, byHeader)
		}
	}
	return netv1alpha1.IngressRule{
		Hosts: names, Visibility: visibility,
		HTTP: &netv1alpha1.HTTPIngressRuleValue{Paths: append(paths, path)},
	}
}

func (p *IngressPlan) path(namespace string, backends []Backend) netv1alpha1.HTTPIngressPath {
	var path netv1alpha1.HTTPIngressPath
	for _, b := range backends {
		port := netapi.ServiceHTTPPort
		switch {
		case p.InternalTLS:
			port = netapi.ServiceHTTPSPort
		case b.H2C:
			port = netapi.ServiceHTTP2Port
		}
		path.Splits = append(path.Splits, netv1alpha1.IngressBackendSplit{
			IngressBackend: netv1alpha1.IngressBackend{
				ServiceNamespace: namespace, ServiceName: b.Revision, ServicePort: intstr.FromInt32(int32(port)),
			},
			Percent:       b.Percent,
			AppendHeaders: map[string]string{revisionHeader: b.Revision, namespaceHeader: namespace},
		})
	}
	return path
}

package domainmapping

import (
	"fmt"
	"net"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// state is all that a decision about a DomainMapping rests on.
type state struct {
	mapping  *servingv1beta1.DomainMapping
	claim    *netv1alpha1.ClusterDomainClaim // nil when nobody has the domain
	target   target
	ingress  *netv1alpha1.Ingress // nil when there is none
	settings *settings.Settings

	certificate *netv1alpha1.Certificate // of the domain's name, nil when there is none
}

// plan is what is to be done.
type plan struct {
	claim   *netv1alpha1.ClusterDomainClaim // to be made
	entry   *controller.Entry               // for the table; nil leaves the present one
	drop    bool                            // the table must not have the domain
	ingress *netv1alpha1.Ingress
	tls     []netv1alpha1.IngressTLS

	createCertificate, updateCertificate *netv1alpha1.Certificate

	after  *servingv1beta1.DomainMapping       // with its new status
	status *servingv1beta1.DomainMappingStatus // within after
}

// decide makes the plan, in upstream's order: what fails leaves the conditions after it as they were.
func (s *state) decide(at ports) plan {
	after := s.mapping.DeepCopy()
	p := plan{after: after, status: &after.Status}
	controller.Begin(after)
	defer controller.Finish(after, s.mapping)
	if s.mapping.Generation != s.mapping.Status.ObservedGeneration {
		p.status.MarkIngressNotConfigured()
	}
	p.say(at.url(s.settings.Network.DefaultExternalScheme, s.mapping.Name))
	if !p.decideClaim(s) {
		return p
	}
	p.say(at.url(p.decideTLS(s), s.mapping.Name))
	host, service, err := s.host()
	if err != nil {
		p.status.MarkReferenceNotResolved(err.Error())
		return p
	}
	p.status.MarkReferenceResolved()
	p.ingress = render.MappingIngress(s.mapping, render.MappingPlan{
		Class: controller.IngressClass(s.mapping.Annotations, s.settings.Network), Host: host, Service: service,
		TLS: p.tls, Option: certificate.HTTPOption(s.settings.Network, s.mapping.Annotations),
	})
	p.decideIngress(s, host)
	return p
}

// say has the status show the domain's URL.
func (p *plan) say(url *apis.URL) {
	p.status.URL, p.status.Address = url, &duckv1.Addressable{URL: url}
}

// decideClaim tells whether the domain is the namespace's. Who has no claim keeps what the table
// has for it as long as nobody else claims the domain.
func (p *plan) decideClaim(s *state) bool {
	switch {
	case s.claim == nil && s.settings.Network.AutocreateClusterDomainClaims:
		p.claim = render.Claim(s.mapping)
	case s.claim == nil:
		p.status.MarkDomainClaimNotOwned()
		return false
	case s.claim.Spec.Namespace != s.mapping.Namespace:
		p.drop = true
		p.status.MarkDomainClaimNotOwned()
		return false
	}
	p.status.MarkDomainClaimed()
	return true
}

// decideIngress says who serves the domain: the gateway, or another's.
func (p *plan) decideIngress(s *state, host string) {
	switch {
	case s.ingress != nil && !metav1.IsControlledBy(s.ingress, s.mapping):
		controller.Manage(p.after).MarkFalse(servingv1beta1.DomainMappingConditionIngressReady, "NotOwned",
			"There is an existing Ingress %q that we do not own.", s.ingress.Name)
		p.ingress = nil
	case controller.Ours(p.ingress):
		p.entry = s.entryOf(host)
		controller.Manage(p.after).MarkTrue(servingv1beta1.DomainMappingConditionIngressReady)
	case controller.Answered(s.ingress, p.ingress):
		p.drop = true
		p.status.PropagateIngressStatus(s.ingress.Status)
	default:
		p.drop = true
		controller.MarkUnanswered(p.after, servingv1beta1.DomainMappingConditionIngressReady, p.ingress)
	}
}

// host is the name in the cluster that the reference stands for, and the Service it begins with. It
// must be a Service's, in the DomainMapping's own namespace.
func (s *state) host() (host, service string, err error) {
	if s.target.problem != nil {
		return "", "", s.target.problem
	}
	u := s.target.url
	if strings.TrimSuffix(u.Path, "/") != "" {
		return "", "", fmt.Errorf("resolved URI %q contains a path", u)
	}
	suffix := "." + clusterServices
	name, isService := strings.CutSuffix(u.Host, suffix)
	service, namespace, ok := strings.Cut(name, ".")
	if !isService || !ok || strings.Contains(namespace, ".") {
		return "", "", fmt.Errorf("resolved URI %q must be of the form {name}.{namespace}%s", u, suffix)
	}
	if namespace != s.mapping.Namespace {
		return "", "", fmt.Errorf("resolved URI %q must be in same namespace as DomainMapping", u)
	}
	return u.Host, service, nil
}

// clusterServices ends the names of Services.
var clusterServices = domaincfg.DefaultDomain

// entryOf has the domain answer as the host does. A host without a Route is a plain Service: its
// server gets the requests under the name it knows.
func (s *state) entryOf(host string) *controller.Entry {
	dm := s.mapping
	return &controller.Entry{Rules: []traffic.Rule{{
		Host: dm.Name, Route: types.NamespacedName{Namespace: dm.Namespace, Name: dm.Name},
		Like: host, Backend: net.JoinHostPort(host, "80"), HostRewrite: host,
		Secret: s.secret(), Redirect: certificate.Redirected(s.settings.Network, dm.Annotations),
	}}}
}

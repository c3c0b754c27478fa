package route

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/certificate"
)

// provision is a certificate that names are to have, and the one there is.
type provision struct {
	want, have *netv1alpha1.Certificate
	state      certificate.State
}

// secret is where the key is, once there is one.
func (p provision) secret() types.NamespacedName {
	if p.state != certificate.Ready {
		return types.NamespacedName{}
	}
	return certificate.SecretOf(p.have)
}

// certificates gathers what may stand for the Route's hosts: its own by name, others in their way, and
// the namespace's wildcards. They belong to the cache and are not to be changed.
func (r *Reconciler) certificates(ctx context.Context, route *servingv1.Route) ([]*netv1alpha1.Certificate, error) {
	var list netv1alpha1.CertificateList
	if err := r.client.List(ctx, &list, client.InNamespace(route.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing certificates in %s: %w", route.Namespace, err)
	}
	var out []*netv1alpha1.Certificate
	for i := range list.Items {
		c := &list.Items[i]
		_, wildcard := c.Labels[netapi.WildcardCertDomainLabelKey]
		if wildcard || c.Labels[serving.RouteLabelKey] == route.Name || strings.HasPrefix(c.Name, "route-"+string(route.UID)) {
			out = append(out, c)
		}
	}
	return out, nil
}

// secure finds the certificates for a tag's names and has its URL say https where that is so.
func (n naming) secure(s state, tag string, h *host) {
	network, class := s.settings.Network, certificate.ClassOf(s.settings.Network, s.route.Annotations)
	if certificate.Local(network) {
		h.inside = provide(s, certificate.OfRouteLocal(s.route, tag, h.local, class))
	}
	if len(h.public) == 0 {
		if h.inside.state == certificate.Ready {
			h.url = &apis.URL{Scheme: "https", Host: h.local[0]}
		}
		return
	}
	h.redirect = certificate.Redirected(network, s.route.Annotations)
	if !certificate.External(network, s.route.Annotations) {
		return
	}
	domain := s.settings.Domain.LookupDomainForLabels(s.route.Labels)
	h.outside = provide(s, certificate.OfRoute(s.route, tag, h.public[0], domain, class))
	scheme := "http"
	if h.outside.state.Secure() {
		scheme = "https"
	}
	h.url = n.url(scheme, h.public[0])
}

// provide finds what stands for a wanted certificate: a wildcard of the namespace, else one of its name.
func provide(s state, want *netv1alpha1.Certificate) provision {
	p := provision{want: want}
	if certificate.KindOf(want) == netcfg.CertificateExternalDomain {
		p.have = certificate.Wildcard(s.wildcards(), want.Spec.DNSNames[0])
	}
	if p.have == nil {
		if i := slices.IndexFunc(s.certificates, func(c *netv1alpha1.Certificate) bool { return c.Name == want.Name }); i >= 0 {
			p.have = s.certificates[i]
		}
	}
	p.state = certificate.StateOf(want, p.have, s.settings.Network)
	return p
}

// wildcards are the namespace's certificates for the domain of the Route.
func (s state) wildcards() []*netv1alpha1.Certificate {
	domain := s.settings.Domain.LookupDomainForLabels(s.route.Labels)
	return slices.DeleteFunc(slices.Clone(s.certificates), func(c *netv1alpha1.Certificate) bool {
		return c.Labels[netapi.WildcardCertDomainLabelKey] != domain
	})
}

// decideTLS plans the Certificates and says how far they are; the worst of all counts.
func (p *plan) decideTLS(s state, hosts map[string]host) {
	network := s.settings.Network
	external := certificate.External(network, s.route.Annotations)
	reason := servingv1.ExternalDomainTLSNotEnabledMessage
	if external {
		reason = servingv1.TLSNotEnabledForClusterLocalMessage
	}
	p.status.MarkTLSNotEnabled(reason)
	used, worst := map[netcfg.CertificateType]map[string]bool{}, provision{}
	if external {
		used[netcfg.CertificateExternalDomain] = map[string]bool{}
	}
	if certificate.Local(network) {
		used[netcfg.CertificateClusterLocalDomain] = map[string]bool{}
	}
	for _, tag := range slices.Sorted(maps.Keys(hosts)) {
		for _, c := range []provision{hosts[tag].outside, hosts[tag].inside} {
			if c.want == nil {
				continue
			}
			for _, name := range c.want.Spec.DNSNames {
				used[certificate.KindOf(c.want)][name] = true
			}
			p.write(c)
			if worse(c.state, worst.state) {
				worst = c
			}
		}
	}
	if hosts[""].inside.state == certificate.Ready {
		p.status.Address.URL.Scheme = "https"
	}
	worst.mark(p.status)
	p.deleteCertificates = orphans(s, used)
}

// worse orders states by how much they are to be told of.
func worse(a, b certificate.State) bool {
	order := []certificate.State{certificate.Off, certificate.Ready, certificate.Plain, certificate.Wanted, certificate.Failed, certificate.Foreign}
	return slices.Index(order, a) > slices.Index(order, b)
}

// write plans what makes a certificate as wanted, unless another one stands for it.
func (p *plan) write(c provision) {
	switch {
	case c.have == nil:
		p.createCertificates = append(p.createCertificates, c.want)
	case c.have.Name == c.want.Name && c.state != certificate.Foreign:
		if changed := certificate.Update(c.want, c.have); changed != nil {
			p.updateCertificates = append(p.updateCertificates, changed)
		}
	}
}

// mark says of the status how far the certificate is.
func (p provision) mark(status *servingv1.RouteStatus) {
	present := p.have
	if present == nil {
		present = p.want
	}
	switch p.state {
	case certificate.Off:
	case certificate.Ready:
		status.MarkCertificateReady(present.Name)
	case certificate.Plain:
		status.MarkHTTPDowngrade(present.Name)
	case certificate.Wanted:
		status.MarkCertificateNotReady(present)
	case certificate.Failed:
		status.MarkCertificateProvisionFailed(present)
	case certificate.Foreign:
		status.MarkCertificateNotOwned(present.Name)
	}
}

// orphans are the Route's Certificates of the kinds in use whose names it has no more.
func orphans(s state, used map[netcfg.CertificateType]map[string]bool) []*netv1alpha1.Certificate {
	var out []*netv1alpha1.Certificate
	for _, c := range s.certificates {
		names, known := used[certificate.KindOf(c)]
		if !known || c.Labels[serving.RouteLabelKey] != s.route.Name {
			continue
		}
		if !slices.ContainsFunc(c.Spec.DNSNames, func(name string) bool { return names[name] }) {
			out = append(out, c)
		}
	}
	return out
}

// ingressTLS is what an Ingress says of the hosts' certificates.
func ingressTLS(hosts map[string]host) []netv1alpha1.IngressTLS {
	var out []netv1alpha1.IngressTLS
	for _, tag := range slices.Sorted(maps.Keys(hosts)) {
		for _, c := range []provision{hosts[tag].outside, hosts[tag].inside} {
			if c.state == certificate.Ready {
				out = append(out, certificate.IngressTLS(c.have, c.want.Spec.DNSNames))
			}
		}
	}
	return out
}

// writeCertificates makes the Route's Certificates.
func (r *Reconciler) writeCertificates(ctx context.Context, route *servingv1.Route, p *plan) error {
	for _, c := range p.createCertificates {
		if err := r.client.Create(ctx, c); apierrors.IsAlreadyExists(err) {
			continue // the cache is behind; its event comes
		} else if err != nil {
			r.events.Eventf(route, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create Certificate %s/%s: %v", c.Namespace, c.Name, err)
			return fmt.Errorf("creating certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
		r.events.Eventf(route, c, corev1.EventTypeNormal, "Created", "Create", "Created Certificate %s/%s", c.Namespace, c.Name)
	}
	for _, c := range p.updateCertificates {
		if err := r.client.Update(ctx, c); err != nil {
			return fmt.Errorf("updating certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	for _, c := range p.deleteCertificates {
		if err := r.client.Delete(ctx, c.DeepCopy()); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	return nil
}

// underWildcard maps a namespace's certificate to the Routes it may stand for.
func (r *Reconciler) underWildcard(ctx context.Context, o client.Object) []ctrl.Request {
	if _, ok := o.GetLabels()[netapi.WildcardCertDomainLabelKey]; !ok {
		return nil
	}
	var routes servingv1.RouteList
	if err := r.client.List(ctx, &routes, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing routes of a namespace", "namespace", o.GetNamespace(), "error", err)
		return nil
	}
	out := make([]ctrl.Request, 0, len(routes.Items))
	for i := range routes.Items {
		out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&routes.Items[i])})
	}
	return out
}

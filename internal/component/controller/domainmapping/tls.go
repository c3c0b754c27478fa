package domainmapping

import (
	"context"
	"fmt"
	"net"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"

	"ebb.dev/ebb/internal/domain/certificate"
)

// ports are what public URLs carry; 0 stands for the usual one.
type ports struct{ plain, tls int }

// url is the domain's.
func (p ports) url(scheme, name string) *apis.URL {
	port, usual := p.plain, 80
	if scheme == "https" {
		port, usual = p.tls, 443
	}
	if port != 0 && port != usual {
		name = net.JoinHostPort(name, strconv.Itoa(port))
	}
	return &apis.URL{Scheme: scheme, Host: name}
}

// provision is the certificate the domain is to have, and how far it is; none is wanted where the
// DomainMapping names a Secret, or nobody asked for TLS.
func (s *state) provision() (want *netv1alpha1.Certificate, state certificate.State) {
	network := s.settings.Network
	if s.mapping.Spec.TLS != nil || !certificate.External(network, s.mapping.Annotations) {
		return nil, certificate.Off
	}
	want = certificate.OfDomain(s.mapping, certificate.ClassOf(network, s.mapping.Annotations))
	return want, certificate.StateOf(want, s.certificate, network)
}

// secret is where the domain's key is, nameless while there is none.
func (s *state) secret() types.NamespacedName {
	if tls := s.mapping.Spec.TLS; tls != nil {
		return types.NamespacedName{Namespace: s.mapping.Namespace, Name: tls.SecretName}
	}
	if _, state := s.provision(); state == certificate.Ready {
		return certificate.SecretOf(s.certificate)
	}
	return types.NamespacedName{}
}

// decideTLS says where the domain's certificate comes from and returns the scheme of its URL.
func (p *plan) decideTLS(s *state) (scheme string) {
	if secret := s.secret(); secret.Name != "" {
		p.tls = []netv1alpha1.IngressTLS{{Hosts: []string{s.mapping.Name}, SecretName: secret.Name, SecretNamespace: secret.Namespace}}
	}
	if s.mapping.Spec.TLS != nil {
		p.status.MarkCertificateNotRequired(servingv1beta1.TLSCertificateProvidedExternally)
		return "https"
	}
	want, state := s.provision()
	if want != nil && state != certificate.Foreign {
		p.createCertificate = want
		if s.certificate != nil {
			p.createCertificate, p.updateCertificate = nil, certificate.Update(want, s.certificate)
		}
	}
	switch state {
	case certificate.Off:
		p.status.MarkTLSNotEnabled(servingv1beta1.ExternalDomainTLSNotEnabledMessage)
		return s.settings.Network.DefaultExternalScheme
	case certificate.Ready:
		p.status.MarkCertificateReady(want.Name)
	case certificate.Plain:
		p.status.MarkHTTPDowngrade(want.Name)
	case certificate.Wanted, certificate.Failed:
		p.status.MarkCertificateNotReady(want.Name)
	case certificate.Foreign:
		p.status.MarkCertificateNotOwned(want.Name)
	}
	if state.Secure() {
		return "https"
	}
	return "http"
}

// writeCertificate makes the domain's Certificate.
func (r *Reconciler) writeCertificate(ctx context.Context, p plan) error {
	if c := p.createCertificate; c != nil {
		if err := r.client.Create(ctx, c); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	if c := p.updateCertificate; c != nil {
		if err := r.client.Update(ctx, c); err != nil {
			return fmt.Errorf("updating certificate %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	return nil
}

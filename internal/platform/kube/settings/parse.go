package settings

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/serving/pkg/deployment"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"
	"sigs.k8s.io/yaml"

	"ebb.dev/ebb/internal/domain/certificate"
)

// DefaultDomain is the domain of routes when config-domain names none without a selector: every
// name below it is this machine, by standard and in browsers.
const DefaultDomain = "localhost"

// IngressClass is the class of Ingresses that ebb's own gateway answers for, and config-network's
// default.
const IngressClass = "ebb.ingress.networking.knative.dev"

// noSidecar stands in for the side-car's image, which upstream's parser insists on; it is never
// started.
const noSidecar = "ebb.dev/no-queue-proxy"

func parseDeployment(m *corev1.ConfigMap) (*deployment.Config, error) {
	data := maps.Clone(m.Data)
	if data == nil {
		data = map[string]string{}
	}
	if data[deployment.QueueSidecarImageKey] == "" {
		data[deployment.QueueSidecarImageKey] = noSidecar
	}
	return deployment.NewConfigFromMap(data)
}

// parseNetwork differs from upstream in the default classes of ingresses and of certificates, which are
// ebb's own: neither needs another program.
func parseNetwork(m *corev1.ConfigMap) (*netcfg.Config, error) {
	n, err := netcfg.NewConfigFromConfigMap(m)
	if err != nil {
		return nil, err
	}
	// Older keys are still read, and less than those of today.
	if m.Data["ingress.class"] == "" && m.Data[netcfg.DefaultIngressClassKey] == "" {
		n.DefaultIngressClass = IngressClass
	}
	if m.Data["certificate.class"] == "" && m.Data[netcfg.DefaultCertificateClassKey] == "" {
		n.DefaultCertificateClass = certificate.Class
	}
	return n, nil
}

const certManagerName = "config-certmanager"

// CertManager says which issuer cert-manager is asked for certificates of each kind.
type CertManager struct {
	External, ClusterLocal, SystemInternal Issuer
}

// Issuer names a cert-manager issuer.
type Issuer struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind,omitempty"`
	Name  string `json:"name,omitempty"`
}

// parseCertManager has upstream's default for what is left out: its self-signed cluster issuer.
func parseCertManager(m *corev1.ConfigMap) (*CertManager, error) {
	standard := Issuer{Kind: "ClusterIssuer", Name: "knative-selfsigned-issuer"}
	c := &CertManager{External: standard, ClusterLocal: standard, SystemInternal: standard}
	for key, into := range map[string]*Issuer{
		"issuerRef": &c.External, "clusterLocalIssuerRef": &c.ClusterLocal, "systemInternalIssuerRef": &c.SystemInternal,
	} {
		if err := yaml.Unmarshal([]byte(m.Data[key]), into); err != nil {
			return nil, fmt.Errorf("reading %s: %w", key, err)
		}
	}
	return c, nil
}

// parseDomain differs from upstream in one default: without a domain for all routes it is
// localhost and not the cluster's own, so that a printed URL answers on the machine.
func parseDomain(m *corev1.ConfigMap) (*domaincfg.Domain, error) {
	d, err := domaincfg.NewDomainFromConfigMap(m)
	if err != nil {
		return nil, err
	}
	for name := range m.Data {
		if name == domaincfg.DefaultDomain {
			return d, nil // asked for by name
		}
	}
	if fallback, ok := d.Domains[domaincfg.DefaultDomain]; ok {
		delete(d.Domains, domaincfg.DefaultDomain)
		d.Domains[DefaultDomain] = fallback
	}
	return d, nil
}

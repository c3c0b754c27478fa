package settings

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/serving/pkg/deployment"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"
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

// parseNetwork differs from upstream in the default ingress class, which is ebb's own.
func parseNetwork(m *corev1.ConfigMap) (*netcfg.Config, error) {
	data := maps.Clone(m.Data)
	if data == nil {
		data = map[string]string{}
	}
	const older = "ingress.class" // still read, and less than the key of today
	if data[older] == "" && data[netcfg.DefaultIngressClassKey] == "" {
		data[netcfg.DefaultIngressClassKey] = IngressClass
	}
	return netcfg.NewConfigFromMap(data)
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

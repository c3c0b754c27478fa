package settings

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netcfg "knative.dev/networking/pkg/config"
	cm "knative.dev/pkg/configmap"
	"knative.dev/serving/pkg/deployment"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"
)

// DefaultDomain is the domain of routes when config-domain names none without a selector: every
// name below it is this machine, by standard and in browsers.
const DefaultDomain = "localhost"

// IngressClass is the class of Ingresses that ebb's own gateway answers for, and config-network's
// default.
const IngressClass = "ebb.ingress.networking.knative.dev"

const observabilityName = "config-observability"

// noSidecar stands in for the side-car's image, which upstream's parser insists on; it is never
// started.
const noSidecar = "ebb.dev/no-queue-proxy"

// Observability is what ebb reads of config-observability.
type Observability struct {
	// RevisionURLTemplate makes Revision.status.logUrl; ${REVISION_UID} is replaced.
	RevisionURLTemplate string
	// RequestLogTemplate is the Go template of a request log line; empty for none.
	RequestLogTemplate string
	// RequestLog tells whether requests are logged.
	RequestLog bool
	// RequestLogProbes tells whether probes are logged too.
	RequestLogProbes bool
}

func parseObservability(m *corev1.ConfigMap) (*Observability, error) {
	o := &Observability{}
	return o, cm.Parse(m.Data,
		cm.AsString("logging.revision-url-template", &o.RevisionURLTemplate),
		cm.AsString("logging.request-log-template", &o.RequestLogTemplate),
		cm.AsBool("logging.enable-request-log", &o.RequestLog),
		cm.AsBool("logging.enable-probe-request-log", &o.RequestLogProbes),
	)
}

// LogURL is the place of a revision's logs, empty when no template is set.
func (o *Observability) LogURL(uid string) string {
	return strings.ReplaceAll(o.RevisionURLTemplate, "${REVISION_UID}", uid)
}

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

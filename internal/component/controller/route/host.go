package route

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netapi "knative.dev/networking/pkg/apis/networking"
	netcfg "knative.dev/networking/pkg/config"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	domaincfg "knative.dev/serving/pkg/reconciler/route/config"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// naming makes a Route's hosts and URLs.
type naming struct {
	settings   *settings.Settings
	publicPort int // of http URLs; 0 for the usual one
	tlsPort    int // of https URLs
	aliases    map[string][]string
}

// host is one tag's names; public ones are empty when it is seen inside the cluster only.
type host struct {
	service string // of the Kubernetes Service
	url     *apis.URL
	public  []string
	local   []string

	outside, inside provision // the certificates of the first public name, and of the local ones
	redirect        bool      // plain requests to public names go to https
}

// hosts makes the names of one tag of a Route ("" is the Route itself).
func (n naming) hosts(route *servingv1.Route, tag string, clusterLocal bool) (host, error) {
	h := host{}
	var err error
	if h.service, err = n.label(route.Name, tag); err != nil {
		return h, err
	}
	short := h.service + "." + route.Namespace
	h.local = []string{short + "." + domaincfg.DefaultDomain, short + ".svc", short}
	if clusterLocal {
		h.url = &apis.URL{Scheme: "http", Host: h.local[0]}
		return h, nil
	}
	labels := maps.Clone(route.Labels)
	delete(labels, netapi.VisibilityLabelKey)
	domain := n.settings.Domain.LookupDomainForLabels(labels)
	name, err := n.full(route, h.service, domain, labels)
	if err != nil {
		return h, err
	}
	h.public = []string{name}
	for _, alias := range n.aliases[domain] {
		other, err := n.full(route, h.service, alias, labels)
		if err != nil {
			return h, err
		}
		h.public = append(h.public, other)
	}
	h.url = n.url(n.settings.Network.DefaultExternalScheme, name)
	return h, nil
}

// url is a public host's, with the port it has on this machine.
func (n naming) url(scheme, name string) *apis.URL {
	port, usual := n.publicPort, 80
	if scheme == "https" {
		port, usual = n.tlsPort, 443
	}
	if port != 0 && port != usual {
		name = net.JoinHostPort(name, strconv.Itoa(port))
	}
	return &apis.URL{Scheme: scheme, Host: name}
}

// label is the first part of a host: the Route's name with the tag, by the tag template.
func (n naming) label(route, tag string) (string, error) {
	if tag == "" {
		return route, nil
	}
	return execute(n.settings.Network.GetTagTemplate(), netcfg.TagTemplateValues{Name: route, Tag: tag})
}

// full is a public host, by the domain template.
func (n naming) full(route *servingv1.Route, name, domain string, labels map[string]string) (string, error) {
	out, err := execute(n.settings.Network.GetDomainTemplate(), netcfg.DomainTemplateValues{
		Name: name, Namespace: route.Namespace, Domain: domain, Annotations: route.Annotations, Labels: labels,
	})
	if err != nil {
		return "", err
	}
	if errs := validation.IsFullyQualifiedDomainName(field.NewPath("url"), out); len(errs) > 0 {
		return "", fmt.Errorf("%w: invalid domain name %q: %w", controller.ErrHost, out, errs.ToAggregate())
	}
	return out, nil
}

func execute(t *template.Template, data any) (string, error) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("%w: executing the template %s: %w", controller.ErrHost, t.Name(), err)
	}
	return b.String(), nil
}

// clusterLocal tells whether a tag is kept inside the cluster: by the Route's own label or domain,
// or by a label on the tag's Kubernetes Service.
func (n naming) clusterLocal(s state, tag string) bool {
	if s.route.Labels[netapi.VisibilityLabelKey] == serving.VisibilityClusterLocal {
		return true
	}
	if strings.EqualFold(n.settings.Domain.LookupDomainForLabels(s.route.Labels), domaincfg.DefaultDomain) {
		return true
	}
	name, err := n.label(s.route.Name, tag)
	if err != nil {
		return false // told where the host is made
	}
	svc := s.services[name]
	return svc != nil && hidden(svc)
}

func hidden(svc *corev1.Service) bool { return svc.Labels[netapi.VisibilityLabelKey] != "" }

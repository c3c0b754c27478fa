package certificate_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"

	"ebb.dev/ebb/internal/domain/certificate"
)

var route = &servingv1.Route{ObjectMeta: metav1.ObjectMeta{
	Name: "hello", Namespace: "shop", UID: "u-1", Annotations: map[string]string{
		"note": "kept", "networking.knative.dev/certificate-class": "second spelling", corev1.LastAppliedConfigAnnotation: "{}",
	},
}}

// described is what tools look for, in one value.
type described struct {
	Name, Secret, Class, Domain string
	Names                       []string
	Labels                      map[string]string
	Note                        string
}

func describe(c *netv1alpha1.Certificate) described {
	return described{
		c.Name, c.Spec.SecretName, c.Annotations["networking.knative.dev/certificate.class"], c.Spec.Domain, c.Spec.DNSNames, c.Labels, c.Annotations["note"],
	}
}

func TestCertificatesAreCalledAsUpstreams(t *testing.T) {
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: "www.example.org", Namespace: "shop", UID: "u-2"}}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "u-3"}}
	const label = "serving.knative.dev/route"
	kind := func(kind string) map[string]string {
		return map[string]string{label: "hello", "networking.knative.dev/certificate-type": kind}
	}
	tests := map[string]struct {
		got  *netv1alpha1.Certificate
		want described
	}{
		"of a Route": {
			certificate.OfRoute(route, "", "hello.shop.example.com", "example.com", "c"),
			described{"route-u-1", "route-u-1", "c", "example.com", []string{"hello.shop.example.com"}, kind("external-domain"), "kept"},
		},
		"of a tag": {
			certificate.OfRoute(route, "next", "next-hello.shop.example.com", "example.com", "c"),
			described{"route-u-1-72286656", "route-u-1-72286656", "c", "example.com", []string{"next-hello.shop.example.com"}, kind("external-domain"), "kept"},
		},
		"of a Route, inside": {
			certificate.OfRouteLocal(route, "", []string{"hello.shop.svc.cluster.local", "hello.shop.svc", "hello.shop"}, "c"),
			described{"route-u-1-local", "route-u-1-local", "c", "svc.cluster.local", []string{"hello.shop", "hello.shop.svc", "hello.shop.svc.cluster.local"}, kind("cluster-local-domain"), "kept"},
		},
		"of a DomainMapping": {
			certificate.OfDomain(dm, "c"),
			described{"www.example.org", "www.example.org", "c", "www.example.org", []string{"www.example.org"}, map[string]string{
				"serving.knative.dev/domainMappingUID": "www.example.org", "networking.knative.dev/certificate-type": "external-domain",
			}, ""},
		},
		"of a namespace": {
			certificate.OfNamespace(ns, "*.shop.example.com", "example.com", "c"),
			described{"shop.example.com", "shop.example.com", "c", "", []string{"*.shop.example.com"}, map[string]string{"networking.knative.dev/wildcardDomain": "example.com"}, ""},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, describe(tt.got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := tt.got.Validate(t.Context()); err != nil {
				t.Error(err)
			}
			if len(tt.got.OwnerReferences) != 1 || tt.got.Namespace != "shop" || len(tt.got.Annotations[corev1.LastAppliedConfigAnnotation]) > 0 {
				t.Errorf("%+v", tt.got.ObjectMeta)
			}
		})
	}
}

func network(t *testing.T, values ...string) *netcfg.Config {
	t.Helper()
	data := map[string]string{}
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		data[key] = value
	}
	n, err := netcfg.NewConfigFromMap(data)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatIsWanted(t *testing.T) {
	const on, redirect = "external-domain-tls=Enabled", "http-protocol=Redirected"
	type answers struct {
		External bool
		Option   netv1alpha1.HTTPOption
	}
	tests := map[string]struct {
		network     *netcfg.Config
		annotations map[string]string
		want        answers
	}{
		"nothing":                           {network(t), nil, answers{false, "Enabled"}},
		"TLS":                               {network(t, on), nil, answers{true, "Enabled"}},
		"TLS but not here":                  {network(t, on), map[string]string{"networking.knative.dev/disable-external-domain-tls": "true"}, answers{false, "Enabled"}},
		"TLS but not here, as of old":       {network(t, on), map[string]string{"networking.knative.dev/disableAutoTLS": "true"}, answers{false, "Enabled"}},
		"TLS, and a word that means nought": {network(t, on), map[string]string{"networking.knative.dev/disable-external-domain-tls": "maybe"}, answers{true, "Enabled"}},
		"a redirect":                        {network(t, redirect), nil, answers{false, "Redirected"}},
		"a redirect, but not here":          {network(t, redirect), map[string]string{"networking.knative.dev/http-protocol": "Enabled"}, answers{false, "Enabled"}},
		"a redirect here":                   {network(t), map[string]string{"networking.knative.dev/httpOption": "redirected"}, answers{false, "Redirected"}},
		"no plain requests at all":          {network(t, "http-protocol=Disabled"), nil, answers{false, ""}},
	}
	for name, tt := range tests {
		got := answers{certificate.External(tt.network, tt.annotations), certificate.HTTPOption(tt.network, tt.annotations)}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if certificate.Redirected(tt.network, tt.annotations) != (tt.want.Option == netv1alpha1.HTTPOptionRedirected) {
			t.Errorf("%s: redirected says otherwise", name)
		}
	}
}

func TestStateOf(t *testing.T) {
	public := certificate.OfRoute(route, "", "hello.shop.example.com", "example.com", "c")
	inside := certificate.OfRouteLocal(route, "", []string{"hello.shop.svc.cluster.local"}, "c")
	with := func(c *netv1alpha1.Certificate, change func(*netv1alpha1.Certificate)) *netv1alpha1.Certificate {
		out := c.DeepCopy()
		change(out)
		return out
	}
	ready := func(c *netv1alpha1.Certificate) { c.Status.MarkReady() }
	failed := func(c *netv1alpha1.Certificate) { c.Status.MarkFailed("Bad", "luck") }
	plain, redirected := network(t), network(t, "http-protocol=Redirected")
	tests := map[string]struct {
		want, have *netv1alpha1.Certificate
		network    *netcfg.Config
		state      certificate.State
		secure     bool
	}{
		"not there, plain requests are served":     {public, nil, plain, certificate.Plain, false},
		"on its way, plain requests are served":    {public, with(public, func(*netv1alpha1.Certificate) {}), plain, certificate.Plain, false},
		"failed, plain requests are served":        {public, with(public, failed), plain, certificate.Plain, false},
		"not there, plain requests are redirected": {public, nil, redirected, certificate.Wanted, true},
		"failed, plain requests are redirected":    {public, with(public, failed), redirected, certificate.Failed, true},
		"ready":                                    {public, with(public, ready), plain, certificate.Ready, true},
		"ready, for what it was before":            {public, with(public, func(c *netv1alpha1.Certificate) { ready(c); c.Generation = 2 }), redirected, certificate.Wanted, true},
		"inside there is no plain meanwhile":       {inside, nil, plain, certificate.Wanted, true},
		"of somebody else":                         {public, with(public, func(c *netv1alpha1.Certificate) { ready(c); c.OwnerReferences[0].UID = "other" }), plain, certificate.Foreign, false},
		"a wildcard, which is the namespaces":      {public, with(public, func(c *netv1alpha1.Certificate) { ready(c); c.Name = "w"; c.OwnerReferences = nil }), plain, certificate.Ready, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := certificate.StateOf(tt.want, tt.have, tt.network)
			if got != tt.state || got.Secure() != tt.secure {
				t.Errorf("state %d secure %v, want %d %v", got, got.Secure(), tt.state, tt.secure)
			}
		})
	}
}

func TestWildcard(t *testing.T) {
	all := []*netv1alpha1.Certificate{
		{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Spec: netv1alpha1.CertificateSpec{DNSNames: []string{"hello.shop.example.com"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "wild"}, Spec: netv1alpha1.CertificateSpec{DNSNames: []string{"*.shop.example.com"}}},
	}
	for host, want := range map[string]bool{"hello.shop.example.com": true, "a.b.shop.example.com": false, "shop.example.com": false, "localhost": false} {
		if got := certificate.Wildcard(all, host); (got != nil) != want || want && got.Name != "wild" {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestUpdateKeepsWhatIsThereAsItIs(t *testing.T) {
	want := certificate.OfRoute(route, "", "hello.shop.example.com", "example.com", "c")
	have := want.DeepCopy()
	have.ResourceVersion = "7"
	have.Status.MarkReady()
	if certificate.Update(want, have) != nil {
		t.Error("there is nothing to write")
	}
	other := certificate.OfRoute(route, "", "hello.shop.example.org", "example.org", "d")
	changed := certificate.Update(other, have)
	if changed == nil || changed.ResourceVersion != "7" || changed.Spec.Domain != "example.org" || changed.Annotations["networking.knative.dev/certificate.class"] != "d" {
		t.Errorf("%+v", changed)
	}
	if ref := certificate.IngressTLS(have, []string{"h"}); ref.SecretName != "route-u-1" || ref.SecretNamespace != "shop" {
		t.Errorf("%+v", ref)
	}
	if got := certificate.SecretOf(have); got != (types.NamespacedName{Namespace: "shop", Name: "route-u-1"}) {
		t.Error(got)
	}
}

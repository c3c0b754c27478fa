package route

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/certificate"
)

// tlsFixture is a Route with the tag next, and what config-network says.
func tlsFixture(t *testing.T, network map[string]string) state {
	t.Helper()
	s := fixture(t, latest(100, ""), fixed("hello-1", 0, "next"))
	values := map[string]string{}
	for key, value := range network {
		values["config-network/"+key] = value
	}
	s.settings = parse(t, values)
	return s
}

// shown is what a decision says of TLS.
type shown struct {
	Condition    string
	URL, Tag     string
	Address      string
	Made         []string // certificates to create
	Secrets      []string // host and Secret
	Redirected   []string
	InTheIngress int
}

func show(p plan) shown {
	c := p.status.GetCondition(servingv1.RouteConditionCertificateProvisioned)
	out := shown{
		Condition: string(c.Status) + " " + c.Reason, URL: p.status.URL.String(), Address: p.status.Address.URL.String(),
		InTheIngress: len(p.ingress.Spec.TLS),
	}
	for _, t := range p.status.Traffic {
		if t.URL != nil {
			out.Tag = t.URL.String()
		}
	}
	for _, c := range p.createCertificates {
		out.Made = append(out.Made, c.Spec.DNSNames[0])
	}
	for _, r := range p.entry.Rules {
		if r.Secret.Name != "" {
			out.Secrets = append(out.Secrets, r.Host+" "+r.Secret.Name)
		}
		if r.Redirect {
			out.Redirected = append(out.Redirected, r.Host)
		}
	}
	slices.Sort(out.Secrets)
	slices.Sort(out.Redirected)
	return out
}

func tlsNaming(s state) naming {
	return naming{settings: s.settings, publicPort: 8080, tlsPort: 8443, aliases: map[string][]string{"localhost": {"127.0.0.1.sslip.io"}}}
}

// withCertificates gives a state the certificates it would make, each ready if that is said.
func withCertificates(t *testing.T, s state, ready ...string) state {
	t.Helper()
	p := tlsNaming(s).decide(s, gateway)
	for _, c := range p.createCertificates {
		if slices.Contains(ready, c.Spec.DNSNames[0]) {
			c.Status.MarkReady()
		}
		s.certificates = append(s.certificates, c)
	}
	return s
}

func TestTLSOfARoute(t *testing.T) {
	const main, tag = "hello.shop.localhost", "next-hello.shop.localhost"
	on := map[string]string{"external-domain-tls": "Enabled"}
	strict := map[string]string{"external-domain-tls": "Enabled", "http-protocol": "Redirected"}
	inside := map[string]string{"cluster-local-domain-tls": "Enabled"}
	everyPublicHost := []string{"hello.shop.127.0.0.1.sslip.io", main, "next-hello.shop.127.0.0.1.sslip.io", tag}
	const address, secureAddress = "http://hello.shop.svc.cluster.local", "https://hello.shop.svc.cluster.local"
	hidden := func(s state) state {
		s.route.Labels[netapi.VisibilityLabelKey] = "cluster-local"
		return s
	}
	wildcard := certificate.OfNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "ns"}}, "*.shop.localhost", "localhost", "c")
	wildcard.Status.MarkReady()
	wild := tlsFixture(t, on)
	wild.certificates = []*netv1alpha1.Certificate{wildcard}
	off := tlsFixture(t, on)
	off.route.Annotations = map[string]string{netapi.DisableExternalDomainTLSAnnotationKey: "true"}
	foreign := withCertificates(t, tlsFixture(t, on), main, tag)
	foreign.certificates[0].OwnerReferences[0].UID = "other"
	tests := map[string]struct {
		state state
		want  shown
	}{
		"nobody asked for it": {tlsFixture(t, nil), shown{"True TLSNotEnabled", "http://" + main + ":8080", "http://" + tag + ":8080", address, nil, nil, nil, 0}},
		"switched off here":   {off, shown{"True TLSNotEnabled", "http://" + main + ":8080", "http://" + tag + ":8080", address, nil, nil, nil, 0}},
		"no certificates yet": {tlsFixture(t, on), shown{"True HTTPDowngrade", "http://" + main + ":8080", "http://" + tag + ":8080", address, []string{main, tag}, nil, nil, 0}},
		"no certificates yet, and plain requests are redirected": {tlsFixture(t, strict), shown{
			"Unknown CertificateNotReady", "https://" + main + ":8443", "https://" + tag + ":8443", address, []string{main, tag}, nil, everyPublicHost, 0,
		}},
		"one is ready, the tag's is not": {withCertificates(t, tlsFixture(t, on), main), shown{
			"True HTTPDowngrade", "https://" + main + ":8443", "http://" + tag + ":8080", address, nil, []string{main + " route-ru"}, nil, 1,
		}},
		"all are ready": {withCertificates(t, tlsFixture(t, on), main, tag), shown{
			"True ", "https://" + main + ":8443", "https://" + tag + ":8443", address, nil, []string{main + " route-ru", tag + " route-ru-72286656"}, nil, 2,
		}},
		"a wildcard of the namespace": {wild, shown{
			"True ", "https://" + main + ":8443", "https://" + tag + ":8443", address, nil, []string{main + " shop.localhost", tag + " shop.localhost"}, nil, 2,
		}},
		"one is somebody else's": {foreign, shown{
			"False CertificateNotOwned", "http://" + main + ":8080", "https://" + tag + ":8443", address, nil, []string{tag + " route-ru-72286656"}, nil, 1,
		}},
		"seen inside only": {hidden(tlsFixture(t, on)), shown{"True TLSNotEnabled", address, "http://next-hello.shop.svc.cluster.local", address, nil, nil, nil, 0}},
		"names inside, not yet": {tlsFixture(t, inside), shown{
			"Unknown CertificateNotReady", "http://" + main + ":8080", "http://" + tag + ":8080", address, []string{"hello.shop", "next-hello.shop"}, nil, nil, 0,
		}},
		"names inside": {withCertificates(t, tlsFixture(t, inside), "hello.shop", "next-hello.shop"), shown{
			"True ", "http://" + main + ":8080", "http://" + tag + ":8080", secureAddress, nil, []string{
				"hello.shop route-ru-local", "hello.shop.svc route-ru-local", "hello.shop.svc.cluster.local route-ru-local",
				"next-hello.shop route-ru-72286656-local", "next-hello.shop.svc route-ru-72286656-local", "next-hello.shop.svc.cluster.local route-ru-72286656-local",
			}, nil, 2,
		}},
		"names inside, of what is seen inside only": {withCertificates(t, hidden(tlsFixture(t, inside)), "hello.shop"), shown{
			"Unknown CertificateNotReady", secureAddress, "http://next-hello.shop.svc.cluster.local", secureAddress, nil, []string{
				"hello.shop route-ru-local", "hello.shop.svc route-ru-local", "hello.shop.svc.cluster.local route-ru-local",
			}, nil, 1,
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, show(tlsNaming(tt.state).decide(tt.state, gateway))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCertificatesOfFormerNamesAreDeleted(t *testing.T) {
	s := withCertificates(t, tlsFixture(t, map[string]string{"external-domain-tls": "Enabled", "cluster-local-domain-tls": "Enabled"}))
	s.route.Spec.Traffic = s.route.Spec.Traffic[:1]
	p := tlsNaming(s).decide(s, gateway)
	gone := map[string]bool{}
	for _, c := range p.deleteCertificates {
		gone[c.Name] = true
	}
	if diff := cmp.Diff([]string{"route-ru-72286656", "route-ru-72286656-local"}, slices.Sorted(maps.Keys(gone))); diff != "" {
		t.Errorf("deleted (-want +got):\n%s", diff)
	}
	s.settings = parse(t, nil)
	if p := tlsNaming(s).decide(s, gateway); len(p.deleteCertificates) > 0 {
		t.Error("switching TLS off deletes what may be switched on again")
	}
}

func TestReconcileWritesCertificates(t *testing.T) {
	s := tlsFixture(t, map[string]string{"external-domain-tls": "Enabled"})
	w := filled(t, s)
	w.reconcile(t)
	var list netv1alpha1.CertificateList
	read := func() {
		t.Helper()
		if err := w.client.List(t.Context(), &list, client.InNamespace("shop")); err != nil {
			t.Fatal(err)
		}
	}
	if read(); len(list.Items) != 2 {
		t.Fatalf("%d certificates, want one for the Route and one for its tag", len(list.Items))
	}
	for i := range list.Items {
		list.Items[i].Status.MarkReady()
		if err := w.client.Update(t.Context(), &list.Items[i]); err != nil {
			t.Fatal(err)
		}
	}
	route := w.reconcile(t)
	if route.Status.URL.Scheme != "https" || !route.Status.GetCondition(servingv1.RouteConditionCertificateProvisioned).IsTrue() {
		t.Errorf("%s, %v", route.Status.URL, route.Status.Conditions)
	}
	if rule, ok := w.table.Match("hello.shop.localhost", true); !ok || rule.Secret.Name != "route-ru" || rule.Secret.Namespace != "shop" {
		t.Errorf("%+v", rule)
	}
}

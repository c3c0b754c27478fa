package domainmapping

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/certificate"
)

func TestTLSOfADomain(t *testing.T) {
	const off, on = "https://" + domain + ":8443", "http://" + domain + ":8080"
	ready := certificate.OfDomain(mapping("shop"), certificate.Class)
	ready.Status.MarkReady()
	failed := ready.DeepCopy()
	failed.Status.MarkFailed("Bad", "luck")
	foreign := ready.DeepCopy()
	foreign.OwnerReferences[0].UID = "other"
	tlsOn := []string{"autocreate-cluster-domain-claims", "true", "external-domain-tls", "Enabled"}
	strict := slices.Concat(tlsOn, []string{"http-protocol", "Redirected"})
	type outcome struct {
		Condition, URL, Secret string
		Redirect, Create       bool
	}
	tests := map[string]struct {
		network  []string
		have     *netv1alpha1.Certificate
		change   func(*servingv1beta1.DomainMapping)
		expected outcome
	}{
		"nobody asked for it": {tlsOn[:2], nil, nil, outcome{"True TLSNotEnabled", on, "", false, false}},
		"a Secret of the user's": {tlsOn[:2], nil, func(dm *servingv1beta1.DomainMapping) {
			dm.Spec.TLS = &servingv1beta1.SecretTLS{SecretName: "mine"}
		}, outcome{"True CertificateExternallyProvided", off, "mine", false, false}},
		"switched off here": {tlsOn, nil, func(dm *servingv1beta1.DomainMapping) {
			dm.Annotations = map[string]string{"networking.knative.dev/disable-external-domain-tls": "true"}
		}, outcome{"True TLSNotEnabled", on, "", false, false}},
		"a redirect here": {tlsOn, ready, func(dm *servingv1beta1.DomainMapping) {
			dm.Annotations = map[string]string{"networking.knative.dev/http-protocol": "redirected"}
		}, outcome{"True ", off, domain, true, false}},
		"no certificate yet":                            {tlsOn, nil, nil, outcome{"True HTTPDowngrade", on, "", false, true}},
		"no certificate yet, and everybody must use it": {strict, nil, nil, outcome{"Unknown CertificateNotReady", off, "", true, true}},
		"a certificate that failed":                     {strict, failed, nil, outcome{"Unknown CertificateNotReady", off, "", true, false}},
		"a certificate":                                 {tlsOn, ready, nil, outcome{"True ", off, domain, false, false}},
		"a certificate of somebody else's":              {tlsOn, foreign, nil, outcome{"False CertificateNotOwned", on, "", false, false}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &state{mapping: mapping("shop"), target: leads(inside, ""), settings: network(t, tt.network...), certificate: tt.have}
			if tt.change != nil {
				tt.change(s.mapping)
			}
			p := s.decide(ports{8080, 8443})
			c := p.status.GetCondition(servingv1beta1.DomainMappingConditionCertificateProvisioned)
			rule := p.entry.Rules[0]
			got := outcome{string(c.Status) + " " + c.Reason, p.status.URL.String(), rule.Secret.Name, rule.Redirect, p.createCertificate != nil}
			if diff := cmp.Diff(tt.expected, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (len(p.ingress.Spec.TLS) == 1) != (rule.Secret.Name != "") || p.status.Address.URL.String() != got.URL {
				t.Errorf("ingress %v, address %s", p.ingress.Spec.TLS, p.status.Address.URL)
			}
		})
	}
}

func TestTheDomainsCertificateIsMadeAndUsed(t *testing.T) {
	s := network(t, "autocreate-cluster-domain-claims", "true", "external-domain-tls", "Enabled")
	w := filled(t, s, mapping("shop"), hello("shop"))
	w.reconcile(t, "shop")
	var c netv1alpha1.Certificate
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: domain}, &c); err != nil {
		t.Fatal(err)
	}
	c.Status.MarkReady()
	if err := w.client.Update(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	if dm := w.reconcile(t, "shop"); !dm.IsReady() || dm.Status.URL.Scheme != "https" {
		t.Errorf("%v %s", told(dm), dm.Status.URL)
	}
	if rule, ok := w.table.Match(domain, true); !ok || rule.Secret.Name != domain {
		t.Errorf("served by %+v", rule)
	}
	kept, err := w.observe(t.Context(), client.ObjectKeyFromObject(&c))
	if err != nil {
		t.Fatal(err)
	}
	if e := kept.restored(); e == nil || e.Rules[0].Secret.Name != domain {
		t.Errorf("after a restart it is served by %+v", e)
	}
}

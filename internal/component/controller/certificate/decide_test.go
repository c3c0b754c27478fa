package certificate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"

	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/authority"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func wanted(class string) *netv1alpha1.Certificate {
	return &netv1alpha1.Certificate{
		ObjectMeta: metav1.ObjectMeta{
			Name: "route-u", Namespace: "shop", UID: "cu", Generation: 2,
			Annotations: map[string]string{netapi.CertificateClassAnnotationKey: class},
		},
		Spec: netv1alpha1.CertificateSpec{DNSNames: []string{"hello.shop.example.com"}, Domain: "example.com", SecretName: "route-u"},
	}
}

// said is a certificate's status in short.
func said(c *netv1alpha1.Certificate) string {
	ready := c.Status.GetCondition(netv1alpha1.CertificateConditionReady)
	if ready == nil {
		return "nothing"
	}
	return string(ready.Status) + " " + ready.Reason
}

func TestDecide(t *testing.T) {
	c := wanted(certificate.Class)
	own := secretFor(c, nil)
	foreign := own.DeepCopy()
	foreign.OwnerReferences = nil
	unmarked := own.DeepCopy()
	unmarked.Labels = map[string]string{netapi.CertificateUIDLabelKey: "another"}
	nameless := c.DeepCopy()
	nameless.Spec.DNSNames = nil
	soon := authority.Judgement{Good: true, Ends: now.Add(100 * time.Hour), Renew: now.Add(time.Hour)}
	far := authority.Judgement{Good: true, Ends: now.Add(300 * time.Hour), Renew: now.Add(200 * time.Hour)}
	type outcome struct {
		Sign  bool
		Said  string
		Again time.Duration
	}
	tests := map[string]struct {
		state state
		want  outcome
	}{
		"without a Secret":              {state{certificate: c}, outcome{true, "Unknown ", 0}},
		"with one that does not do":     {state{certificate: c, secret: own}, outcome{true, "Unknown ", 0}},
		"with one that lost its mark":   {state{certificate: c, secret: unmarked, judgement: far}, outcome{true, "Unknown ", 0}},
		"with a good one":               {state{certificate: c, secret: own, judgement: far}, outcome{false, "True ", recheck}},
		"with one to be renewed soon":   {state{certificate: c, secret: own, judgement: soon}, outcome{false, "True ", time.Hour}},
		"with one of somebody else's":   {state{certificate: c, secret: foreign, judgement: far}, outcome{false, "False NotOwned", 0}},
		"for no host, which is a fault": {state{certificate: nameless}, outcome{false, "False NoNames", 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.state.now = now
			p := decide(tt.state)
			if diff := cmp.Diff(tt.want, outcome{p.sign, said(p.after), p.again}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !p.sign && p.after.Status.ObservedGeneration != 2 {
				t.Error("the generation is not said to be observed")
			}
			if p.again > 0 && !p.after.Status.NotAfter.Time.Equal(tt.state.judgement.Ends) {
				t.Errorf("ends %s", p.after.Status.NotAfter)
			}
		})
	}
}

var issuers = &settings.CertManager{
	External:     settings.Issuer{Kind: "ClusterIssuer", Name: "public"},
	ClusterLocal: settings.Issuer{Name: "local"},
}

// answer is cert-manager's certificate with a condition.
func answer(t *testing.T, c *netv1alpha1.Certificate, status, reason string) *unstructured.Unstructured {
	t.Helper()
	have, _, problem := peerFor(c, issuers)
	if have == nil {
		t.Fatal(problem)
	}
	have.Object["status"] = map[string]any{"notAfter": "2030-02-01T00:00:00Z"}
	if status != "" {
		have.Object["status"].(map[string]any)["conditions"] = []any{map[string]any{"type": "Ready", "status": status, "reason": reason, "message": "m"}}
	}
	return have
}

func TestDecidePeer(t *testing.T) {
	c := wanted(peerClass)
	foreign := answer(t, c, "True", "Ready")
	foreign.SetOwnerReferences(nil)
	other := answer(t, c, "True", "Ready")
	other.Object["spec"].(map[string]any)["dnsNames"] = []any{"former.example.com"}
	filledIn := answer(t, c, "True", "Ready")
	filledIn.Object["spec"].(map[string]any)["duration"] = "2160h"
	long := c.DeepCopy()
	long.Spec.DNSNames, long.Spec.Domain = []string{"a-very-long-name-of-a-service.and-of-its-namespace.as-well.example.com"}, ""
	type outcome struct {
		Said           string
		Create, Update bool
	}
	tests := map[string]struct {
		state peerState
		want  outcome
	}{
		"cert-manager is not there":         {peerState{certificate: c}, outcome{"Unknown CertManagerMissing", false, false}},
		"it was not asked yet":              {peerState{certificate: c, there: true}, outcome{"Unknown NoCertManagerCertCondition", true, false}},
		"it has not answered":               {peerState{certificate: c, there: true, have: answer(t, c, "", "")}, outcome{"Unknown NoCertManagerCertCondition", false, false}},
		"it works on it":                    {peerState{certificate: c, there: true, have: answer(t, c, "False", "InProgress")}, outcome{"Unknown InProgress", false, false}},
		"it gave up":                        {peerState{certificate: c, there: true, have: answer(t, c, "False", "Denied")}, outcome{"False Denied", false, false}},
		"it is done":                        {peerState{certificate: c, there: true, have: answer(t, c, "True", "Ready")}, outcome{"True ", false, false}},
		"it is done, and filled in more":    {peerState{certificate: c, there: true, have: filledIn}, outcome{"True ", false, false}},
		"it was asked for something else":   {peerState{certificate: c, there: true, have: other}, outcome{"True ", false, true}},
		"the name is somebody else's":       {peerState{certificate: c, there: true, have: foreign}, outcome{"False NotOwned", false, false}},
		"the name is too long to be common": {peerState{certificate: long, there: true}, outcome{"False CommonName Too Long", false, false}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.state.issuers = issuers
			after, create, update := decidePeer(tt.state)
			if diff := cmp.Diff(tt.want, outcome{said(after), create != nil, update != nil}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tt.state.have != nil && said(after) == "True " && (after.Status.NotAfter == nil || after.Status.NotAfter.Month() != time.February) {
				t.Errorf("ends %v", after.Status.NotAfter)
			}
		})
	}
}

func TestWhatCertManagerIsAskedFor(t *testing.T) {
	c := wanted(peerClass)
	c.Labels = map[string]string{netapi.CertificateTypeLabelKey: "cluster-local-domain"}
	c.Spec.DNSNames = []string{"a-very-long-name-of-a-service.and-of-its-namespace.as-well.example.com"}
	got, _, problem := peerFor(c, issuers)
	if got == nil {
		t.Fatal(problem)
	}
	want := map[string]any{
		"commonName": "k.example.com", "dnsNames": []any{"k.example.com", c.Spec.DNSNames[0]}, "secretName": "route-u",
		"issuerRef":      map[string]any{"name": "local"},
		"secretTemplate": map[string]any{"labels": map[string]any{netapi.CertificateUIDLabelKey: "cu"}},
	}
	if diff := cmp.Diff(want, got.Object["spec"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.GetKind() != "Certificate" || got.GetAPIVersion() != "cert-manager.io/v1" || !metav1.IsControlledBy(got, c) {
		t.Errorf("%v", got.Object)
	}
	c.Labels[netapi.CertificateTypeLabelKey] = "unheard-of"
	if got, reason, _ := peerFor(c, issuers); got != nil || reason != "certificate type invalid" {
		t.Errorf("%v %s", got, reason)
	}
}

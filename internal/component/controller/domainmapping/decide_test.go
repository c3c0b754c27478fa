package domainmapping

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"

	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

const (
	domain = "shop.example.com"
	inside = "hello.shop.svc.cluster.local"
)

// network makes settings of config-network's keys and values.
func network(t *testing.T, pairs ...string) *settings.Settings {
	t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config-network"}, Data: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		cm.Data[pairs[i]] = pairs[i+1]
	}
	s, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{cm.Name: cm})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func automatic(t *testing.T) *settings.Settings {
	t.Helper()
	return network(t, "autocreate-cluster-domain-claims", "true")
}

func mapping(namespace string) *servingv1beta1.DomainMapping {
	dm := &servingv1beta1.DomainMapping{ObjectMeta: metav1.ObjectMeta{Name: domain, Namespace: namespace, UID: "u", Generation: 1}}
	dm.Spec.Ref = duckv1.KReference{APIVersion: "serving.knative.dev/v1", Kind: "Service", Namespace: namespace, Name: "hello"}
	return dm
}

func claimFor(namespace string) *netv1alpha1.ClusterDomainClaim {
	return render.Claim(mapping(namespace))
}

func leads(host, path string) target {
	return target{url: &apis.URL{Scheme: "http", Host: host, Path: path}}
}

// told writes conditions as "Type=Status Reason", sorted by type.
func told(dm *servingv1beta1.DomainMapping) map[string]string {
	out := map[string]string{}
	for _, c := range dm.Status.Conditions {
		out[string(c.Type)] = strings.TrimSpace(string(c.Status) + " " + c.Reason)
	}
	return out
}

func TestDecide(t *testing.T) {
	served := map[string]string{
		"Ready": "True", "DomainClaimed": "True", "ReferenceResolved": "True", "IngressReady": "True",
		"CertificateProvisioned": "True TLSNotEnabled",
	}
	refused := map[string]string{
		"Ready": "False DomainAlreadyClaimed", "DomainClaimed": "False DomainAlreadyClaimed", "ReferenceResolved": "Unknown",
		"IngressReady": "Unknown IngressNotConfigured", "CertificateProvisioned": "Unknown",
	}
	unresolved := map[string]string{
		"Ready": "False ResolveFailed", "DomainClaimed": "True", "ReferenceResolved": "False ResolveFailed",
		"IngressReady": "Unknown IngressNotConfigured", "CertificateProvisioned": "True TLSNotEnabled",
	}
	tests := map[string]struct {
		change     func(*state)
		want       map[string]string
		claims     bool
		publishes  bool
		drops      bool
		unresolved string // part of the message
	}{
		"nobody has the domain": {func(*state) {}, served, true, true, false, ""},
		"the namespace has the domain": {func(s *state) {
			s.claim, s.settings = claimFor("shop"), network(t)
		}, served, false, true, false, ""},
		"another namespace has the domain": {func(s *state) { s.claim = claimFor("bank") }, refused, false, false, true, ""},
		"nobody has the domain, and claims are the administrator's": {func(s *state) {
			s.settings = network(t)
		}, refused, false, false, false, ""},
		"another's gateway is to serve it": {func(s *state) {
			s.mapping.Annotations = map[string]string{"networking.knative.dev/ingress-class": "other"}
		}, map[string]string{
			"Ready": "Unknown IngressNotConfigured", "DomainClaimed": "True", "ReferenceResolved": "True",
			"IngressReady": "Unknown IngressNotConfigured", "CertificateProvisioned": "True TLSNotEnabled",
		}, true, false, true, ""},
		"the reference leads nowhere": {func(s *state) {
			s.target = target{problem: errors.New("no such thing")}
		}, unresolved, true, false, false, "no such thing"},
		"the reference leads to a path":              {func(s *state) { s.target = leads(inside, "/x") }, unresolved, true, false, false, "contains a path"},
		"the reference leads to a path that is none": {func(s *state) { s.target = leads(inside, "/") }, served, true, true, false, ""},
		"the reference leads out of the cluster":     {func(s *state) { s.target = leads("example.com", "") }, unresolved, true, false, false, "must be of the form"},
		"the reference leads to no service":          {func(s *state) { s.target = leads("x.hello.shop.svc.cluster.local", "") }, unresolved, true, false, false, "must be of the form"},
		"the reference leads to another namespace": {func(s *state) {
			s.target = leads("hello.bank.svc.cluster.local", "")
		}, unresolved, true, false, false, "must be in same namespace"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &state{mapping: mapping("shop"), target: leads(inside, ""), settings: automatic(t)}
			tt.change(s)
			p := s.decide(ports{8080, 8443})
			if diff := cmp.Diff(tt.want, told(p.after)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if (p.claim != nil) != tt.claims || (p.entry != nil) != tt.publishes || (p.ingress != nil) != (tt.want["ReferenceResolved"] == "True") || p.drop != tt.drops {
				t.Errorf("claim %v, entry %v, ingress %v, drop %v", p.claim, p.entry, p.ingress, p.drop)
			}
			if m := p.status.GetCondition(servingv1beta1.DomainMappingConditionReferenceResolved).GetMessage(); !strings.Contains(m, tt.unresolved) {
				t.Errorf("message %q, want %q in it", m, tt.unresolved)
			}
			if u := p.status.URL.String(); u != "http://shop.example.com:8080" || p.status.Address.URL.String() != u {
				t.Errorf("URL %s, address %s", u, p.status.Address.URL)
			}
			if p.status.ObservedGeneration != 1 {
				t.Errorf("generation %d observed", p.status.ObservedGeneration)
			}
		})
	}
}

func TestTheDomainAnswersAsItsTargetDoes(t *testing.T) {
	p := (&state{mapping: mapping("shop"), target: leads(inside, ""), settings: automatic(t)}).decide(ports{80, 443})
	rule := p.entry.Rules[0]
	if rule.Host != domain || rule.Like != inside || rule.Backend != inside+":80" || rule.ClusterLocal {
		t.Errorf("rule %+v", rule)
	}
	if got := render.MappingTarget(p.ingress); got != inside {
		t.Errorf("the ingress leads to %q", got)
	}
	if u := p.status.URL.String(); u != "http://"+domain {
		t.Errorf("URL %s", u)
	}
}

func TestChooseAnAddress(t *testing.T) {
	first, second := "first", "second"
	at := func(name *string, url string) duckv1.Addressable {
		u, err := apis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		return duckv1.Addressable{Name: name, URL: u}
	}
	single := at(nil, "http://single")
	both := []duckv1.Addressable{at(&first, "http://one"), at(&second, "http://two")}
	tests := map[string]struct {
		name   *string
		status duckv1.AddressStatus
		want   string // URL, or part of the complaint
	}{
		"the only one":            {nil, duckv1.AddressStatus{Address: &single}, "http://single"},
		"the first of several":    {nil, duckv1.AddressStatus{Address: &single, Addresses: both}, "http://one"},
		"by name":                 {&second, duckv1.AddressStatus{Address: &single, Addresses: both}, "http://two"},
		"by a name that is not":   {&second, duckv1.AddressStatus{Address: &single}, `"second" not found`},
		"none":                    {nil, duckv1.AddressStatus{}, "address not set"},
		"one without a URL":       {nil, duckv1.AddressStatus{Address: &duckv1.Addressable{}}, "URL missing"},
		"one whose URL is a path": {nil, duckv1.AddressStatus{Address: &duckv1.Addressable{URL: &apis.URL{Path: "/x"}}}, "hostname missing"},
	}
	for name, tt := range tests {
		url, err := choose(&duckv1.KReference{Kind: "Thing", Address: tt.name}, tt.status)
		got := url.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

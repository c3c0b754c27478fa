package namespace

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

const all = "matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}]"

func parsed(t *testing.T, selector, template, domains string) *settings.Settings {
	t.Helper()
	network := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config-network"}, Data: map[string]string{"namespace-wildcard-cert-selector": selector}}
	if template != "" {
		network.Data["domain-template"] = template
	}
	domain := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config-domain"}, Data: map[string]string{}}
	for d := range strings.FieldsSeq(domains) {
		domain.Data[d] = ""
	}
	s, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{"config-network": network, "config-domain": domain})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func named(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"kubernetes.io/metadata.name": name}}}
}

func names(list []*netv1alpha1.Certificate) []string {
	out := []string{}
	for _, c := range list {
		out = append(out, c.Name+" "+c.Spec.DNSNames[0]+" "+c.Labels[netapi.WildcardCertDomainLabelKey])
	}
	return out
}

func TestDecide(t *testing.T) {
	shop := named("shop")
	own := certificate.OfNamespace(shop, "*.shop.example.com", "example.com", certificate.Class)
	former := certificate.OfNamespace(shop, "*.sub.shop.example.com", "example.com", certificate.Class)
	theirs := own.DeepCopy()
	theirs.Name, theirs.OwnerReferences = "theirs", nil
	type written struct{ Create, Update, Remove []string }
	nothing := written{[]string{}, []string{}, []string{}}
	with := func(change func(*written)) written {
		w := nothing
		change(&w)
		return w
	}
	tests := map[string]struct {
		state state
		want  written
	}{
		"one for each domain": {
			state{named("shop"), nil, parsed(t, all, "", "example.com example.org")},
			with(func(w *written) {
				w.Create = []string{"shop.example.com *.shop.example.com example.com", "shop.example.org *.shop.example.org example.org"}
			}),
		},
		"the domain of last resort": {
			state{shop, nil, parsed(t, all, "", "")},
			with(func(w *written) { w.Create = []string{"shop.localhost *.shop.localhost localhost"} }),
		},
		"no namespace is chosen":              {state{shop, nil, parsed(t, "", "", "example.com")}, nothing},
		"another namespace is chosen":         {state{named("kube-system"), nil, parsed(t, all, "", "example.com")}, nothing},
		"it is there":                         {state{shop, []*netv1alpha1.Certificate{own}, parsed(t, all, "", "example.com")}, nothing},
		"somebody else's does as well":        {state{shop, []*netv1alpha1.Certificate{theirs}, parsed(t, all, "", "example.com")}, nothing},
		"somebody else's is nobody's to take": {state{shop, []*netv1alpha1.Certificate{theirs}, parsed(t, "", "", "example.com")}, nothing},
		"the template was changed": {
			state{shop, []*netv1alpha1.Certificate{former}, parsed(t, all, "", "example.com")},
			with(func(w *written) { w.Update = []string{"sub.shop.example.com *.shop.example.com example.com"} }),
		},
		"the namespace is chosen no more": {
			state{shop, []*netv1alpha1.Certificate{own}, parsed(t, "", "", "example.com")},
			with(func(w *written) { w.Remove = []string{"shop.example.com *.shop.example.com example.com"} }),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := decide(tt.state)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, written{names(p.create), names(p.update), names(p.remove)}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if _, err := decide(state{shop, nil, parsed(t, all, "prefix-{{.Name}}.{{.Namespace}}.{{.Domain}}", "example.com")}); err == nil {
		t.Error("a template that allows no wildcard makes one")
	}
}

func TestReconcileFollowsTheSelector(t *testing.T) {
	shop := named("shop")
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(shop).Build()
	count := func(s *settings.Settings) int {
		t.Helper()
		r := &Reconciler{client: c, events: events.NewFakeRecorder(50), settings: settings.Fixed(s), log: slog.New(slog.DiscardHandler)}
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(shop)}); err != nil {
			t.Fatal(err)
		}
		var list netv1alpha1.CertificateList
		if err := c.List(t.Context(), &list, client.InNamespace("shop")); err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	for _, step := range []struct {
		selector string
		want     int
	}{{"", 0}, {all, 1}, {all, 1}, {"", 0}} {
		if got := count(parsed(t, step.selector, "", "example.com")); got != step.want {
			t.Errorf("with selector %q there are %d, want %d", step.selector, got, step.want)
		}
	}
}

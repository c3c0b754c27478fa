package domainmapping

import (
	"context"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

type world struct {
	*Reconciler
	routes *controller.Chapter
	table  *traffic.Table
	news   []types.NamespacedName                // mappings that lost their host, or got it after all
	plain  map[string]*unstructured.Unstructured // Services and others that are not Serving's, "Kind/name"
}

// newWorld has a table that is not yet restored, and the objects given.
func newWorld(t *testing.T, s *settings.Settings, objects ...client.Object) *world {
	t.Helper()
	w := &world{plain: map[string]*unstructured.Unstructured{}}
	b := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).
		WithStatusSubresource(&servingv1beta1.DomainMapping{}, &netv1alpha1.Ingress{}, &servingv1.Service{})
	if err := Index(t.Context(), indexer{b}); err != nil {
		t.Fatal(err)
	}
	c, log := b.Build(), slog.New(slog.DiscardHandler)
	book := controller.NewBook(func(t *traffic.Table) { w.table = t })
	w.routes = book.Chapter(func(types.NamespacedName) {})
	w.Reconciler = &Reconciler{
		client: c, live: c, events: events.NewFakeRecorder(50), settings: settings.Fixed(s),
		references: &references{served: c, others: w.other}, book: book.Chapter(func(name types.NamespacedName) { w.news = append(w.news, name) }), ports: ports{8080, 8443}, log: log,
	}
	w.ingresses = controller.Ingresses{Client: c, Events: w.events, Inside: "inside", Outside: "outside"}
	return w
}

// filled is a world whose table was restored and holds the hosts of the Route hello of a namespace.
func filled(t *testing.T, s *settings.Settings, objects ...client.Object) *world {
	t.Helper()
	w := newWorld(t, s, objects...)
	w.routes.Fill(nil)
	w.book.Fill(nil)
	for _, namespace := range []string{"shop", "bank"} {
		name := types.NamespacedName{Namespace: namespace, Name: "hello"}
		if err := w.routes.Put(t.Context(), name, routeEntry(name)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func routeEntry(route types.NamespacedName) controller.Entry {
	return controller.Entry{Rules: []traffic.Rule{{
		Host: route.Name + "." + route.Namespace + ".svc.cluster.local", ClusterLocal: true, Route: route,
		Targets: []traffic.Target{{Revision: route, Percent: 100}},
	}}}
}

type indexer struct{ *fake.ClientBuilder }

func (x indexer) IndexField(_ context.Context, o client.Object, field string, value client.IndexerFunc) error {
	x.WithIndex(o, field, value)
	return nil
}

// other is what is read of kinds that are not Serving's.
func (w *world) other(_ context.Context, o *unstructured.Unstructured) error {
	if o.GetKind() == "Unheard" {
		return &meta.NoKindMatchError{GroupKind: o.GroupVersionKind().GroupKind()}
	}
	have := w.plain[o.GetKind()+"/"+o.GetName()]
	if have == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: o.GetKind()}, o.GetName())
	}
	o.Object = have.Object
	return nil
}

func hello(namespace string) *servingv1.Service {
	svc := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: namespace}}
	svc.Status.Address = &duckv1.Addressable{URL: &apis.URL{Scheme: "http", Host: "hello." + namespace + ".svc.cluster.local"}}
	return svc
}

func (w *world) reconcile(t *testing.T, namespace string) *servingv1beta1.DomainMapping {
	t.Helper()
	key := types.NamespacedName{Namespace: namespace, Name: domain}
	for range 2 { // the second time nothing is left to do
		if _, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			t.Fatal(err)
		}
	}
	dm := &servingv1beta1.DomainMapping{}
	if err := client.IgnoreNotFound(w.client.Get(t.Context(), key, dm)); err != nil {
		t.Fatal(err)
	}
	return dm
}

// answers tells the namespace whose revision answers for the domain from outside.
func (w *world) answers() string {
	r, ok := w.table.Match(domain, true)
	if !ok {
		return ""
	}
	return r.Pick(0).Revision.Namespace
}

func TestTheFirstNamespaceHasTheDomainUntilItLetsGo(t *testing.T) {
	w := filled(t, automatic(t), mapping("shop"), hello("shop"), mapping("bank"), hello("bank"))
	first := w.reconcile(t, "shop")
	if !first.IsReady() || w.answers() != "shop" {
		t.Fatalf("the first: %v, answered by %q", told(first), w.answers())
	}
	var ingress netv1alpha1.Ingress
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(first), &ingress); err != nil || !ingress.IsReady() {
		t.Errorf("ingress %+v (%v)", ingress.Status, err)
	}
	if second := w.reconcile(t, "bank"); told(second)["DomainClaimed"] != "False DomainAlreadyClaimed" || w.answers() != "shop" {
		t.Errorf("the second: %v, answered by %q", told(second), w.answers())
	}
	if err := w.client.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if gone := w.reconcile(t, "shop"); gone.Name != "" || w.answers() != "" {
		t.Errorf("the first is still there: %v, answered by %q", gone.Finalizers, w.answers())
	}
	if second := w.reconcile(t, "bank"); !second.IsReady() || w.answers() != "bank" {
		t.Errorf("the second, later: %v, answered by %q", told(second), w.answers())
	}
}

func TestAClaimThatIsAnothersIsNotReleased(t *testing.T) {
	for name, tt := range map[string]struct {
		settings *settings.Settings
		claim    string
		kept     bool
	}{
		"its own":                             {automatic(t), "shop", false},
		"another namespace's":                 {automatic(t), "bank", true},
		"its own, but made by administrators": {network(t), "shop", true},
	} {
		dm := mapping("shop")
		dm.Finalizers = []string{finalizer}
		w := filled(t, tt.settings, dm, claimFor(tt.claim))
		if err := w.client.Delete(t.Context(), dm); err != nil {
			t.Fatal(err)
		}
		if gone := w.reconcile(t, "shop"); gone.Name != "" {
			t.Errorf("%s: the mapping is kept by %v", name, gone.Finalizers)
		}
		err := w.client.Get(t.Context(), types.NamespacedName{Name: domain}, &netv1alpha1.ClusterDomainClaim{})
		if (err == nil) != tt.kept {
			t.Errorf("%s: claim %v, want kept %v", name, err, tt.kept)
		}
	}
}

func TestAClaimThatMovesTakesTheDomainAlong(t *testing.T) {
	claim := claimFor("shop")
	w := filled(t, network(t), mapping("shop"), hello("shop"), mapping("bank"), hello("bank"), claim)
	w.reconcile(t, "shop")
	claim.Spec.Namespace = "bank"
	if err := w.client.Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t, "shop")
	if dm := w.reconcile(t, "bank"); !dm.IsReady() || w.answers() != "bank" {
		t.Errorf("conditions %v, answered by %q", told(dm), w.answers())
	}
	if dm := w.reconcile(t, "shop"); told(dm)["Ready"] != "False DomainAlreadyClaimed" {
		t.Errorf("the former owner's conditions %v", told(dm))
	}
}

func TestADomainThatIsARoutesHost(t *testing.T) {
	w := filled(t, automatic(t), mapping("shop"), hello("shop"))
	other := types.NamespacedName{Namespace: "bank", Name: "other"}
	e := routeEntry(other)
	e.Rules[0].Host, e.Rules[0].ClusterLocal = domain, false
	if err := w.routes.Put(t.Context(), other, e); err != nil {
		t.Fatal(err)
	}
	if dm := w.reconcile(t, "shop"); told(dm)["IngressReady"] != "False NotServed" || w.answers() != "bank" {
		t.Errorf("conditions %v, answered by %q", told(dm), w.answers())
	}
	w.news = nil
	w.routes.Drop(other)
	if len(w.news) != 1 {
		t.Fatalf("news of %v, want the mapping's", w.news)
	}
	if dm := w.reconcile(t, "shop"); !dm.IsReady() || w.answers() != "shop" {
		t.Errorf("once the host is free: conditions %v, answered by %q", told(dm), w.answers())
	}
}

func TestReferences(t *testing.T) {
	thing := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "things.example/v1", "kind": "Thing",
		"status": map[string]any{"address": map[string]any{"url": "http://hello.shop.svc.cluster.local"}},
	}}
	tests := map[string]struct {
		version, kind string
		want          string // reason of ReferenceResolved, empty when resolved
	}{
		"a service":                         {"serving.knative.dev/v1", "Service", ""},
		"a route that is not there":         {"serving.knative.dev/v1", "Route", "ResolveFailed"},
		"a Kubernetes service":              {"v1", "Service", ""},
		"a thing with an address":           {"things.example/v1", "Thing", ""},
		"a thing without an address":        {"v1", "ConfigMap", "ResolveFailed"},
		"a kind that the cluster lacks":     {"things.example/v1", "Unheard", "ResolveFailed"},
		"a Kubernetes object not there yet": {"v1", "Secret", "ResolveFailed"},
	}
	for name, tt := range tests {
		dm := mapping("shop")
		dm.Spec.Ref.APIVersion, dm.Spec.Ref.Kind = tt.version, tt.kind
		w := filled(t, automatic(t), dm, hello("shop"))
		w.plain["Thing/hello"] = thing
		w.plain["Service/hello"] = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Service"}}
		w.plain["ConfigMap/hello"] = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
		got := w.reconcile(t, "shop").Status.GetCondition(servingv1beta1.DomainMappingConditionReferenceResolved)
		if got.GetReason() != tt.want {
			t.Errorf("%s: %s (%s), want %q", name, got.GetReason(), got.GetMessage(), tt.want)
		}
	}
}

func TestRestoreKeepsWhatWasServed(t *testing.T) {
	before := filled(t, automatic(t), mapping("shop"), hello("shop"))
	dm := before.reconcile(t, "shop")
	var ingress netv1alpha1.Ingress
	if err := before.client.Get(t.Context(), client.ObjectKeyFromObject(dm), &ingress); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		claim string
		want  string
	}{
		"its claim stands":             {"shop", "shop"},
		"another has the claim by now": {"bank", ""},
	} {
		w := newWorld(t, automatic(t), dm.DeepCopy(), ingress.DeepCopy(), claimFor(tt.claim))
		if err := (restorer{w.Reconciler}).Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		route := types.NamespacedName{Namespace: "shop", Name: "hello"}
		w.routes.Fill(map[types.NamespacedName]controller.Entry{route: routeEntry(route)})
		if w.answers() != tt.want {
			t.Errorf("%s: answered by %q, want %q", name, w.answers(), tt.want)
		}
	}
}

func TestWhoIsAsked(t *testing.T) {
	w := newWorld(t, automatic(t), mapping("shop"), mapping("bank"))
	if got := w.named(t.Context(), render.Claim(mapping("x"))); len(got) != 2 {
		t.Errorf("a claim concerns %v", got)
	}
	if got := w.referring(t.Context(), hello("shop")); len(got) != 1 || got[0].Namespace != "shop" {
		t.Errorf("a service concerns %v", got)
	}
	plain := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop"}}
	if got := w.referring(t.Context(), plain); len(got) != 0 {
		t.Errorf("a Kubernetes service of the same name concerns %v", got)
	}
}

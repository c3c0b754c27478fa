package interceptorroute

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/kube"
)

var born = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a reconciler over a fake API, and the table it made.
type world struct {
	*Reconciler
	t     *testing.T
	table *traffic.Table
	news  []types.NamespacedName
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithStatusSubresource(&httpv1beta1.InterceptorRoute{}).Build()
	w := &world{t: t}
	book := controller.NewBook(func(t *traffic.Table) { w.table = t })
	w.Reconciler = &Reconciler{
		client: c, maps: c, log: slog.New(slog.DiscardHandler),
		book: book.Chapter(func(name types.NamespacedName) { w.news = append(w.news, name) }),
	}
	if err := (restorer{w.Reconciler}).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// reconcile returns the route's condition afterwards.
func (w *world) reconcile(namespace, name string) metav1.Condition {
	w.t.Helper()
	key := types.NamespacedName{Namespace: namespace, Name: name}
	if _, err := w.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		w.t.Fatal(err)
	}
	var route httpv1beta1.InterceptorRoute
	if err := w.client.Get(w.t.Context(), key, &route); err != nil {
		return metav1.Condition{}
	}
	c := meta.FindStatusCondition(route.Status.Conditions, "Ready")
	if c == nil {
		return metav1.Condition{}
	}
	c.LastTransitionTime = metav1.Time{}
	return *c
}

func (w *world) finds(host, path string) string {
	r, ok := w.table.Find(host, path, nil)
	if !ok {
		return ""
	}
	return r.Route.String()
}

// route is an InterceptorRoute of a host, so many seconds old less.
func route(namespace, name, host string, age int, change ...func(*httpv1beta1.InterceptorRouteSpec)) *httpv1beta1.InterceptorRoute {
	r := &httpv1beta1.InterceptorRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Generation: 2, CreationTimestamp: metav1.NewTime(born.Add(time.Duration(age) * time.Second))},
		Spec: httpv1beta1.InterceptorRouteSpec{
			Target: httpv1beta1.TargetRef{Service: name, Port: 80},
			Rules:  []httpv1beta1.RoutingRule{{Hosts: []string{host}}},
		},
	}
	for _, f := range change {
		f(&r.Spec)
	}
	return r
}

func TestARouteIsServed(t *testing.T) {
	w := newWorld(t, route("shop", "cart", "cart.example", 0))
	if got := w.finds("cart.example", "/"); got != "shop/cart" {
		t.Errorf("after a restart the host is %q's", got)
	}
	want := metav1.Condition{Type: "Ready", Status: "True", ObservedGeneration: 2, Reason: "Reconciled", Message: "InterceptorRoute reconciled"}
	if diff := cmp.Diff(want, w.reconcile("shop", "cart")); diff != "" {
		t.Error(diff)
	}
	if err := w.client.Delete(t.Context(), route("shop", "cart", "", 0)); err != nil {
		t.Fatal(err)
	}
	w.reconcile("shop", "cart")
	if got := w.finds("cart.example", "/"); got != "" {
		t.Errorf("the host of a route that is gone is %q's", got)
	}
}

func TestAnOlderRouteKeepsItsHost(t *testing.T) {
	w := newWorld(t, route("b", "old", "both.example", 0), route("a", "new", "both.example", 1))
	if c := w.reconcile("b", "old"); c.Status != metav1.ConditionTrue {
		t.Errorf("the older: %+v", c)
	}
	c := w.reconcile("a", "new")
	const message = "domain name error: invalid route: host both.example with path / of route a/new is already taken by route b/old, which has /"
	if c.Status != metav1.ConditionFalse || c.Reason != "NotServed" || c.Message != message {
		t.Errorf("the newer: %+v", c)
	}
	if err := w.client.Delete(t.Context(), route("b", "old", "", 0)); err != nil {
		t.Fatal(err)
	}
	w.news = nil
	w.reconcile("b", "old")
	if len(w.news) != 1 || w.news[0].Name != "new" {
		t.Errorf("news of %v, want the one that gets the host", w.news)
	}
	if c := w.reconcile("a", "new"); c.Status != metav1.ConditionTrue {
		t.Errorf("once the host is free: %+v", c)
	}
}

func TestAPlaceholderFromAConfigMap(t *testing.T) {
	file := &httpv1beta1.ColdStartSpec{Placeholder: &httpv1beta1.ColdStartPlaceholder{Response: &httpv1beta1.StaticResponse{
		StatusCode: 202, BodyFromConfigMap: &httpv1beta1.ConfigMapKeyRef{Name: "pages", Key: "wait.html"},
	}}}
	w := newWorld(t, route("shop", "cart", "cart.example", 0, func(s *httpv1beta1.InterceptorRouteSpec) { s.ColdStart = file }))
	shown := func() *traffic.Placeholder {
		w.reconcile("shop", "cart")
		s, _ := w.table.Settings(traffic.PseudoRevision(types.NamespacedName{Namespace: "shop", Name: "cart"}))
		return s.Service.Placeholder
	}
	if p := shown(); !p.Broken || p.Status != 202 {
		t.Errorf("without the map: %+v", p)
	}
	pages := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "pages"}, Data: map[string]string{"wait.html": "soon"}}
	if err := w.client.Create(t.Context(), pages); err != nil {
		t.Fatal(err)
	}
	if p := shown(); p.Broken || p.Files["wait.html"] != "soon" || p.File != "wait.html" {
		t.Errorf("with it: %+v", p)
	}
	if got := w.showing(t.Context(), pages); len(got) != 1 || got[0].Name != "cart" {
		t.Errorf("the map is shown by %v", got)
	}
	pages.Name = "other"
	if got := w.showing(t.Context(), pages); len(got) != 0 {
		t.Errorf("another map is shown by %v", got)
	}
}

package route

import (
	"context"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var key = types.NamespacedName{Namespace: "shop", Name: "hello"}

type world struct {
	*Reconciler
	table *traffic.Table
	early bool // the status said ready before the table had the route
}

func newWorld(t *testing.T, s state, more ...client.Object) *world {
	t.Helper()
	w := &world{}
	objects := append([]client.Object{s.route}, more...)
	for _, o := range s.revisions {
		objects = append(objects, o)
	}
	for _, o := range s.configurations {
		objects = append(objects, o)
	}
	b := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).
		WithStatusSubresource(&servingv1.Route{}, &servingv1.Revision{}, &servingv1.Configuration{}, &netv1alpha1.Ingress{}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
				route, ok := o.(*servingv1.Route)
				if _, known := w.table.Match("hello.shop.localhost", true); ok && !known &&
					route.Status.GetCondition(servingv1.RouteConditionIngressReady).IsTrue() {
					w.early = true
				}
				return c.SubResource(sub).Update(ctx, o, opts...)
			},
		})
	index := indexer{b}
	if err := Index(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	c := b.Build()
	log := slog.New(slog.DiscardHandler)
	w.Reconciler = &Reconciler{
		client: c, live: c, events: events.NewFakeRecorder(50), settings: settings.Fixed(s.settings),
		book:   w.emptyBook(),
		naming: naming{publicPort: 8080}, gateway: gateway, log: log,
	}
	w.ingresses = controller.Ingresses{Client: c, Events: w.events, Inside: gateway, Outside: "outside"}
	return w
}

// emptyBook is a book of Routes alone, not yet restored.
func (w *world) emptyBook() *controller.Chapter {
	return controller.NewBook(func(t *traffic.Table) { w.table = t }).Chapter(func(types.NamespacedName) {})
}

// filled is a world whose table was restored.
func filled(t *testing.T, s state, more ...client.Object) *world {
	t.Helper()
	w := newWorld(t, s, more...)
	w.book.Fill(map[types.NamespacedName]controller.Entry{})
	return w
}

// indexer gives the fake client the indexes a manager's cache would have.
type indexer struct{ *fake.ClientBuilder }

func (x indexer) IndexField(_ context.Context, o client.Object, field string, value client.IndexerFunc) error {
	x.WithIndex(o, field, value)
	return nil
}

func (w *world) reconcile(t *testing.T) *servingv1.Route {
	t.Helper()
	if _, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	var route servingv1.Route
	if err := client.IgnoreNotFound(w.client.Get(t.Context(), key, &route)); err != nil {
		t.Fatal(err)
	}
	return &route
}

func TestReconcilePublishesBeforeItSaysReady(t *testing.T) {
	w := filled(t, fixture(t))
	route := w.reconcile(t)
	if !route.Status.GetCondition(apis.ConditionReady).IsTrue() || w.early {
		t.Errorf("ready %v, said too early %v", route.Status.Conditions, w.early)
	}
	rule, ok := w.table.Match("HELLO.shop.localhost:8080", true)
	if !ok || rule.Targets[0].Revision.Name != "hello-2" {
		t.Errorf("table leads to %+v", rule)
	}
	var svc corev1.Service
	if err := w.client.Get(t.Context(), key, &svc); err != nil || svc.Spec.ExternalName != gateway {
		t.Errorf("service %+v (%v)", svc.Spec, err)
	}
	version := route.ResourceVersion
	if again := w.reconcile(t); again.ResourceVersion != version {
		t.Error("a settled route was written again")
	}
}

func TestReconcileKeepsServingWhileATargetIsMissing(t *testing.T) {
	w := filled(t, fixture(t))
	w.reconcile(t)
	var rev servingv1.Revision
	at := types.NamespacedName{Namespace: "shop", Name: "hello-2"}
	if err := w.client.Get(t.Context(), at, &rev); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Delete(t.Context(), &rev); err != nil {
		t.Fatal(err)
	}
	route := w.reconcile(t)
	if !route.Status.GetCondition(servingv1.RouteConditionAllTrafficAssigned).IsFalse() {
		t.Error("a missing revision is not told")
	}
	if _, ok := w.table.Match("hello.shop.localhost", true); !ok {
		t.Error("the route left the table")
	}
}

func TestReconcileTakesADeletedRouteOut(t *testing.T) {
	s := fixture(t)
	delete(s.route.Labels, serving.ServiceLabelKey)
	for _, rev := range s.revisions {
		delete(rev.Labels, serving.ServiceLabelKey)
	}
	w := filled(t, s)
	route := w.reconcile(t)
	if err := w.client.Delete(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t)
	if _, ok := w.table.Match("hello.shop.localhost", false); ok {
		t.Error("a deleted route is still in the table")
	}
	var rev servingv1.Revision
	if err := w.client.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: "hello-2"}, &rev); err != nil {
		t.Fatal(err)
	}
	if rev.Annotations[serving.RoutesAnnotationKey] != "" || rev.GetRoutingState() != servingv1.RoutingStateReserve {
		t.Errorf("revision still noted: %v %v", rev.Annotations, rev.Labels)
	}
}

func TestNotesOfAServiceWaitForItsRoute(t *testing.T) {
	s := fixture(t)
	cfg := s.configurations["hello"]
	cfg.Labels = map[string]string{serving.ServiceLabelKey: "hello"}
	cfg.Annotations = map[string]string{serving.RoutesAnnotationKey: "hello"}
	w := filled(t, s)
	if err := w.client.Delete(t.Context(), s.route); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t)
	var got servingv1.Configuration
	if err := w.client.Get(t.Context(), key, &got); err != nil || got.Annotations[serving.RoutesAnnotationKey] != "hello" {
		t.Errorf("annotations %v (%v), want the note kept", got.Annotations, err)
	}
}

func TestReconcileRefusesAServiceThatIsAnothers(t *testing.T) {
	foreign := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop"}}
	w := filled(t, fixture(t), foreign)
	route := w.reconcile(t)
	if c := route.Status.GetCondition(servingv1.RouteConditionIngressReady); c.GetReason() != "NotOwned" {
		t.Errorf("ingress %v, want NotOwned", c)
	}
	if w.table.Hosts() > 0 {
		t.Error("the route is published all the same")
	}
}

func TestRestoreFillsTheTableAtOnce(t *testing.T) {
	s := fixture(t)
	s.route.Status = *decided(s).status
	w := newWorld(t, s, render.Placeholder(s.route, "hello", gateway))
	if err := (restorer{w.Reconciler}).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.table.Match("hello.shop.localhost", true); !ok {
		t.Error("the route is not restored")
	}
	w.reconcile(t)
	if _, ok := w.table.Match("hello.shop.localhost", true); !ok {
		t.Error("the restored route left the table")
	}
}

func TestNothingIsPublishedBeforeTheTableIsRestored(t *testing.T) {
	w := newWorld(t, fixture(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Reconcile(ctx, ctrl.Request{NamespacedName: key}); err == nil || w.table != nil {
		t.Errorf("error %v, table %v; want it to wait", err, w.table)
	}
}

func TestLeadingTo(t *testing.T) {
	s := fixture(t)
	rev := s.revisions["hello-1"]
	rev.Annotations = map[string]string{serving.RoutesAnnotationKey: "gone"}
	w := newWorld(t, s)
	got := map[string]bool{}
	for _, req := range w.leadingTo(t.Context(), rev) {
		got[req.Name] = true
	}
	if !got["hello"] || !got["gone"] || len(got) != 2 {
		t.Errorf("routes %v, want the one of its configuration and the one noted", got)
	}
}

package httpscaledobject

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	httpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

var key = types.NamespacedName{Namespace: "shop", Name: "cart"}

// object is an HTTPScaledObject as a user writes it.
func object(change ...func(*httpv1alpha1.HTTPScaledObject)) *httpv1alpha1.HTTPScaledObject {
	o := &httpv1alpha1.HTTPScaledObject{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, UID: "uid", Generation: 3, CreationTimestamp: metav1.NewTime(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)),
			Labels: map[string]string{"app": "cart"}, Annotations: map[string]string{"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
		},
		Spec: httpv1alpha1.HTTPScaledObjectSpec{
			Hosts:          []string{"cart.example"},
			ScaleTargetRef: httpv1alpha1.ScaleTargetRef{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart", Service: "web", Port: 80},
			Replicas:       &httpv1alpha1.ReplicaStruct{Min: new(int32(0)), Max: new(int32(4))}, CooldownPeriod: new(int32(20)),
		},
	}
	for _, f := range change {
		f(o)
	}
	return o
}

type world struct {
	*Reconciler
	t     *testing.T
	table *traffic.Table
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithStatusSubresource(&httpv1alpha1.HTTPScaledObject{}).Build()
	w := &world{t: t}
	book := controller.NewBook(func(t *traffic.Table) { w.table = t })
	w.Reconciler = &Reconciler{client: c, book: book.Chapter(func(types.NamespacedName) {})}
	if err := (restorer{w.Reconciler}).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) reconcile() {
	w.t.Helper()
	if _, err := w.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) object() *httpv1alpha1.HTTPScaledObject {
	w.t.Helper()
	var o httpv1alpha1.HTTPScaledObject
	if err := w.client.Get(w.t.Context(), key, &o); err != nil {
		w.t.Fatal(err)
	}
	return &o
}

// scaled is the ScaledObject; nil if there is none.
func (w *world) scaled() *kedav1alpha1.ScaledObject {
	w.t.Helper()
	var so kedav1alpha1.ScaledObject
	switch err := w.client.Get(w.t.Context(), key, &so); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		w.t.Fatal(err)
	}
	return &so
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ready is the condition in short.
func ready(o *httpv1alpha1.HTTPScaledObject) string {
	c := meta.FindStatusCondition(o.Status.Conditions, "Ready")
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason + ": " + c.Message
}

func TestAScaledObjectIsMade(t *testing.T) {
	w := newWorld(t, object())
	if _, found := w.table.Find("cart.example", "/", nil); !found {
		t.Error("after a restart the host is not there")
	}
	w.reconcile()
	so := w.scaled()
	want := kedav1alpha1.ScaledObjectSpec{
		ScaleTargetRef:  &kedav1alpha1.ScaleTarget{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"},
		PollingInterval: new(int32(15)), CooldownPeriod: new(int32(20)), MinReplicaCount: new(int32(0)), MaxReplicaCount: new(int32(4)),
		Advanced: &kedav1alpha1.AdvancedConfig{RestoreToOriginalReplicaCount: true},
		Triggers: []kedav1alpha1.ScaleTriggers{{Type: "external-push", Metadata: map[string]string{
			"httpScaledObject": "cart", "scalerAddress": "keda-add-ons-http-external-scaler.keda:9090",
		}}},
	}
	if diff := cmp.Diff(want, so.Spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"note": "x"}, so.Annotations); diff != "" || so.Labels["app"] != "cart" || !metav1.IsControlledBy(so, object()) {
		t.Errorf("metadata %+v: %s", so.ObjectMeta, diff)
	}
	o := w.object()
	if got := ready(o); got != "True Reconciled: ScaledObject created and configured" {
		t.Error(got)
	}
	if o.Status.TargetWorkload != "apps/v1/Deployment/cart" || o.Status.TargetService != "web:80" || len(o.Finalizers) != 1 {
		t.Errorf("%+v, finalizers %q", o.Status, o.Finalizers)
	}
}

func TestAScaledObjectIsKeptAsItShouldBe(t *testing.T) {
	w := newWorld(t, object())
	w.reconcile()
	so := w.scaled()
	so.Spec.Fallback = &kedav1alpha1.Fallback{Replicas: 2} // which others may add
	so.Spec.Triggers = nil
	w.must(w.client.Update(t.Context(), so))
	o := w.object()
	o.Spec.Replicas.Max = new(int32(9))
	w.must(w.client.Update(t.Context(), o))
	w.reconcile()
	so = w.scaled()
	if so.Spec.Fallback == nil || len(so.Spec.Triggers) != 1 || *so.Spec.MaxReplicaCount != 9 {
		t.Errorf("%+v", so.Spec)
	}
	version := so.ResourceVersion
	w.reconcile()
	if w.scaled().ResourceVersion != version {
		t.Error("it is written again for nothing")
	}
}

func TestAnnotationsForTheScaledObject(t *testing.T) {
	for name, tt := range map[string]struct {
		annotation string
		left       bool
	}{
		"skipped":  {"httpscaledobject.keda.sh/skip-scaledobject-creation", false},
		"orphaned": {"httpscaledobject.keda.sh/orphan-scaledobject", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, object())
			w.reconcile()
			o := w.object()
			o.Annotations[tt.annotation] = "true"
			w.must(w.client.Update(t.Context(), o))
			w.reconcile()
			so := w.scaled()
			if (so != nil) != tt.left || so != nil && len(so.OwnerReferences) > 0 {
				t.Errorf("left: %+v", so)
			}
			if _, found := w.table.Find("cart.example", "/", nil); !found || !strings.HasPrefix(ready(w.object()), "True") {
				t.Errorf("the route is not served: %s", ready(w.object()))
			}
			w.must(client.IgnoreNotFound(w.client.Delete(t.Context(), &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}})))
			w.reconcile()
			if w.scaled() != nil {
				t.Error("it is made again")
			}
		})
	}
}

func TestWhatCannotWork(t *testing.T) {
	both := object(func(o *httpv1alpha1.HTTPScaledObject) {
		o.Spec.ScalingMetric = &httpv1alpha1.ScalingMetricSpec{Concurrency: &httpv1alpha1.ConcurrencyMetricSpec{}, Rate: &httpv1alpha1.RateMetricSpec{}}
	})
	w := newWorld(t, both)
	w.reconcile()
	if got := ready(w.object()); got != "False CreateError: Failed to create scaled objects: .spec.scalingMetric.concurrency and .spec.scalingMetric.rate are mutually exclusive" || w.scaled() != nil {
		t.Error(got)
	}
	others := &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "y", Controller: new(true)},
	}}}
	w = newWorld(t, object(), others)
	if _, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err == nil {
		t.Error("another's ScaledObject is taken")
	}
	if got := ready(w.object()); !strings.HasPrefix(got, "False CreateError: Failed to create scaled objects: ") {
		t.Error(got)
	}
	w = newWorld(t, object(func(o *httpv1alpha1.HTTPScaledObject) { o.Spec.Hosts = []string{"no host"} }))
	w.reconcile()
	if got := ready(w.object()); !strings.HasPrefix(got, "False NotServed: ") {
		t.Error(got)
	}
}

func TestAnInterceptorRouteGoesBefore(t *testing.T) {
	route := &httpv1beta1.InterceptorRoute{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	w := newWorld(t, object(), route)
	w.reconcile()
	if _, found := w.table.Find("cart.example", "/", nil); found {
		t.Error("the object's own route is served")
	}
	if w.scaled() == nil {
		t.Error("there is no ScaledObject")
	}
	w.must(w.client.Delete(t.Context(), route))
	w.reconcile()
	if _, found := w.table.Find("cart.example", "/", nil); !found {
		t.Error("without the route the object's own is not served")
	}
	w.must(w.client.Delete(t.Context(), w.object()))
	w.reconcile()
	if _, found := w.table.Find("cart.example", "/", nil); found {
		t.Error("what is being deleted is served")
	}
	var left httpv1alpha1.HTTPScaledObject
	if err := w.client.Get(t.Context(), key, &left); !apierrors.IsNotFound(err) {
		t.Errorf("it is not let go of: %v", err)
	}
}

func TestRouteOf(t *testing.T) {
	o := object(func(o *httpv1alpha1.HTTPScaledObject) {
		o.Spec.PathPrefixes = []string{"/a"}
		o.Spec.Headers = []httpv1alpha1.Header{{Name: "X"}, {Name: "Y", Value: new("z")}}
		o.Spec.ColdStartTimeoutFailoverRef = &httpv1alpha1.ColdStartTimeoutFailoverRef{Service: "side", Port: 81, TimeoutSeconds: 7}
		o.Spec.Timeouts = &httpv1alpha1.HTTPScaledObjectTimeoutsSpec{
			ConditionWait: metav1.Duration{Duration: time.Second}, ResponseHeader: metav1.Duration{Duration: 2 * time.Second},
		}
	})
	want := httpv1beta1.InterceptorRouteSpec{
		Target: httpv1beta1.TargetRef{Service: "web", Port: 80},
		Rules: []httpv1beta1.RoutingRule{{
			Hosts: []string{"cart.example"}, Paths: []httpv1beta1.PathMatch{{Value: "/a"}}, Headers: []httpv1beta1.HeaderMatch{{Name: "X"}, {Name: "Y", Value: new("z")}},
		}},
		ColdStart:     &httpv1beta1.ColdStartSpec{Fallback: &httpv1beta1.ColdStartFallback{Service: &httpv1beta1.ServiceRef{Name: "side", Port: 81}}},
		Timeouts:      httpv1beta1.InterceptorRouteTimeouts{Readiness: &metav1.Duration{Duration: 7 * time.Second}, ResponseHeader: &metav1.Duration{Duration: 2 * time.Second}},
		ScalingMetric: httpv1beta1.ScalingMetricSpec{Concurrency: &httpv1beta1.ConcurrencyTargetSpec{TargetValue: 100}},
	}
	if diff := cmp.Diff(want, routeOf(o).Spec); diff != "" {
		t.Error(diff)
	}
	for name, tt := range map[string]struct {
		pending *int32
		metric  *httpv1alpha1.ScalingMetricSpec
		want    httpv1beta1.ScalingMetricSpec
	}{
		"the old target": {new(int32(9)), nil, httpv1beta1.ScalingMetricSpec{Concurrency: &httpv1beta1.ConcurrencyTargetSpec{TargetValue: 9}}},
		"the new one goes before": {
			new(int32(9)), &httpv1alpha1.ScalingMetricSpec{Concurrency: &httpv1alpha1.ConcurrencyMetricSpec{TargetValue: 3}},
			httpv1beta1.ScalingMetricSpec{Concurrency: &httpv1beta1.ConcurrencyTargetSpec{TargetValue: 3}},
		},
		"a rate": {
			nil, &httpv1alpha1.ScalingMetricSpec{Rate: &httpv1alpha1.RateMetricSpec{TargetValue: 5, Window: metav1.Duration{Duration: time.Minute}}},
			httpv1beta1.ScalingMetricSpec{RequestRate: &httpv1beta1.RequestRateTargetSpec{TargetValue: 5, Window: metav1.Duration{Duration: time.Minute}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := object()
			o.Spec.TargetPendingRequests, o.Spec.ScalingMetric = tt.pending, tt.metric
			if diff := cmp.Diff(tt.want, routeOf(o).Spec.ScalingMetric); diff != "" {
				t.Error(diff)
			}
		})
	}
}

package annotation

import (
	"errors"
	"strings"
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/domain/render/scaled"
	"ebb.dev/ebb/internal/platform/kube"
)

var key = types.NamespacedName{Namespace: "shop", Name: "orders"}

func service(text string) *servingv1.Service {
	return &servingv1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, UID: "u", Annotations: map[string]string{scaled.Annotation: text},
	}}
}

// world is a reconciler with its cluster.
type world struct {
	*Reconciler
	t      *testing.T
	events *events.FakeRecorder
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	recorder := events.NewFakeRecorder(10)
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).Build()
	return &world{&Reconciler{client: c, events: recorder}, t, recorder}
}

func (w *world) reconcile() {
	w.t.Helper()
	if _, err := w.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		w.t.Fatal(err)
	}
}

// change sets the Service's annotation.
func (w *world) change(text string) {
	w.t.Helper()
	var s servingv1.Service
	if err := w.client.Get(w.t.Context(), key, &s); err != nil {
		w.t.Fatal(err)
	}
	s.Annotations[scaled.Annotation] = text
	if err := w.client.Update(w.t.Context(), &s); err != nil {
		w.t.Fatal(err)
	}
	w.reconcile()
}

// object is the ScaledObject; nil if there is none.
func (w *world) object() *kedav1alpha1.ScaledObject {
	w.t.Helper()
	var so kedav1alpha1.ScaledObject
	err := w.client.Get(w.t.Context(), key, &so)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &so
}

func (w *world) told() string {
	select {
	case event := <-w.events.Events:
		return event
	default:
		return ""
	}
}

func TestAScaledObjectFollowsTheAnnotation(t *testing.T) {
	w := newWorld(t, service("[{type: cron, metadata: {desiredReplicas: '2'}}]"))
	w.reconcile()
	so := w.object()
	if so == nil || so.Spec.Triggers[0].Type != "cron" || so.Spec.ScaleTargetRef.Kind != "Service" || !metav1.IsControlledBy(so, service("")) {
		t.Fatalf("the object is %+v", so)
	}
	so.Annotations = map[string]string{kedav1alpha1.PausedAnnotation: "true"} // by hand
	if err := w.client.Update(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	version := w.object().ResourceVersion
	w.reconcile()
	if got := w.object().ResourceVersion; got != version {
		t.Error("it is written although nothing changed")
	}
	w.change("{cooldownPeriod: 10, triggers: [{type: kafka}, {type: cron}]}")
	so = w.object()
	if len(so.Spec.Triggers) != 2 || *so.Spec.CooldownPeriod != 10 || so.Annotations[kedav1alpha1.PausedAnnotation] != "true" {
		t.Errorf("the changed object is %+v", so)
	}
	w.change("[{type: kafka}]")
	if so = w.object(); len(so.Spec.Triggers) != 1 || so.Spec.CooldownPeriod != nil {
		t.Errorf("what the annotation no longer says stays: %+v", so.Spec)
	}
	w.change("")
	if so = w.object(); so != nil {
		t.Errorf("without the annotation there is still %+v", so)
	}
	if event := w.told(); event != "" {
		t.Errorf("told %s", event)
	}
}

func TestSomebodyElsesScaledObjectStays(t *testing.T) {
	other := &kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	other.Spec.Triggers = []kedav1alpha1.ScaleTriggers{{Type: "redis"}}
	w := newWorld(t, service("[{type: cron}]"), other)
	w.reconcile()
	if so := w.object(); so == nil || so.Spec.Triggers[0].Type != "redis" || len(so.OwnerReferences) != 0 {
		t.Errorf("it is now %+v", so)
	}
	if event := w.told(); !strings.Contains(event, "there is a ScaledObject orders already") {
		t.Errorf("told %q, want that it is in the way", event)
	}
	w.change("")
	if w.object() == nil {
		t.Error("it is gone with the annotation")
	}
	if err := w.client.Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.change("[{type: cron}]")
	if so := w.object(); so == nil || so.Spec.Triggers[0].Type != "cron" {
		t.Errorf("once there is room there is %+v", so)
	}
}

func TestAnAnnotationThatCannotBeReadIsToldOf(t *testing.T) {
	w := newWorld(t, service("[{type: cron, metdata: {}}]"))
	w.reconcile()
	if event := w.told(); !strings.Contains(event, `triggers[0]: unknown field "metdata"`) || w.object() != nil {
		t.Errorf("told %q, object %+v", event, w.object())
	}
	if _, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: "gone"}}); !errors.Is(err, nil) {
		t.Errorf("a Service that is gone: %v", err)
	}
}

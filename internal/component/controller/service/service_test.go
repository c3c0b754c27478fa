package service

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

func container() corev1.Container { return corev1.Container{Image: "example.com/hello:v1"} }

func sorted(in []string) []string {
	slices.Sort(in)
	return in
}

// reconciler works on a fake API that holds the objects.
func reconciler(t *testing.T, objects ...client.Object) *Reconciler {
	t.Helper()
	defaults, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Reconciler{
		client: fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).
			WithStatusSubresource(&servingv1.Service{}, &servingv1.Configuration{}, &servingv1.Route{}).Build(),
		events:   events.NewFakeRecorder(20),
		settings: settings.Fixed(defaults),
	}
}

func TestReconcileMakesChildrenAndFollowsThem(t *testing.T) {
	s := fixture(t)
	r := reconciler(t, s.service)
	key := types.NamespacedName{Namespace: "shop", Name: "hello"}
	reconcile := func() {
		t.Helper()
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			t.Fatal(err)
		}
	}
	reconcile()
	var cfg servingv1.Configuration
	var route servingv1.Route
	for _, o := range []client.Object{&cfg, &route} {
		if err := r.client.Get(t.Context(), key, o); err != nil {
			t.Fatalf("%T: %v", o, err)
		}
	}
	cfg.Status, route.Status = s.configuration.Status, s.route.Status
	cfg.Status.ObservedGeneration, route.Status.ObservedGeneration = cfg.Generation, route.Generation
	for _, o := range []client.Object{&cfg, &route} {
		if err := r.client.Status().Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	reconcile()
	var svc servingv1.Service
	if err := r.client.Get(t.Context(), key, &svc); err != nil {
		t.Fatal(err)
	}
	if !svc.Status.GetCondition(apis.ConditionReady).IsTrue() || svc.Status.LatestReadyRevisionName != "hello-00001" {
		t.Errorf("status %+v, want ready with hello-00001", svc.Status)
	}
	version := svc.ResourceVersion
	reconcile()
	if err := r.client.Get(t.Context(), key, &svc); err != nil || svc.ResourceVersion != version {
		t.Errorf("a settled service was written again (%v)", err)
	}
}

func TestReconcileLeavesADeletedServiceAlone(t *testing.T) {
	r := reconciler(t)
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "gone"}}); err != nil {
		t.Error(err)
	}
}

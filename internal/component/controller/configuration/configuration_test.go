package configuration

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ebb.dev/ebb/internal/platform/kube"
)

var key = types.NamespacedName{Namespace: "shop", Name: "hello"}

func reconciler(funcs interceptor.Funcs, objects ...client.Object) *Reconciler {
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithInterceptorFuncs(funcs).
		WithStatusSubresource(&servingv1.Configuration{}, &servingv1.Revision{}).Build()
	return &Reconciler{client: c, live: c, events: events.NewFakeRecorder(20)}
}

func ready(t *testing.T, r *Reconciler) *apis.Condition {
	t.Helper()
	var cfg servingv1.Configuration
	if err := r.client.Get(t.Context(), key, &cfg); err != nil {
		t.Fatal(err)
	}
	return cfg.Status.GetCondition(apis.ConditionReady)
}

func TestReconcileMakesARevisionAGeneration(t *testing.T) {
	cfg := configurationOf(1)
	r := reconciler(interceptor.Funcs{}, cfg)
	for range 2 { // the second changes nothing
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			t.Fatal(err)
		}
	}
	var list servingv1.RevisionList
	if err := r.client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != "hello-00001" {
		t.Errorf("revisions %v, want hello-00001 alone", list.Items)
	}
	if c := ready(t, r); !c.IsUnknown() || c == nil {
		t.Errorf("ready %v, want unknown", c)
	}
}

func TestReconcileTellsWhyARevisionCannotBeMade(t *testing.T) {
	refusal := errors.New("quota is used up")
	r := reconciler(interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return refusal
	}}, configurationOf(1))
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); !errors.Is(err, refusal) {
		t.Errorf("error %v, want it tried again", err)
	}
	if c := ready(t, r); !c.IsFalse() || c.Reason != "RevisionFailed" {
		t.Errorf("ready %v, want RevisionFailed", c)
	}
}

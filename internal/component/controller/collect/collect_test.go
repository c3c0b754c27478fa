package collect

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var key = types.NamespacedName{Namespace: "shop", Name: "hello"}

func reconciler(t *testing.T, data map[string]string, funcs interceptor.Funcs, revisions ...*servingv1.Revision) *Reconciler {
	t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config-gc"}, Data: data}
	s, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{cm.Name: cm})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop"}}
	cfg.Status.LatestReadyRevisionName = "a"
	objects := []client.Object{cfg}
	for _, rev := range revisions {
		objects = append(objects, rev)
	}
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
	return &Reconciler{client: c, settings: settings.Fixed(s), log: slog.New(slog.DiscardHandler)}
}

// left reconciles and tells which Revisions remain and when it comes back.
func left(t *testing.T, r *Reconciler) (names string, again time.Duration) {
	t.Helper()
	result, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
	if err != nil {
		t.Fatal(err)
	}
	var list servingv1.RevisionList
	if err := r.client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range list.Items {
		out = append(out, list.Items[i].Name)
	}
	slices.Sort(out)
	return strings.Join(out, " "), result.RequeueAfter
}

func TestRevisionsGoWhenTheyAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		idle := func(name string, since time.Duration) *servingv1.Revision {
			return idleSince(name, now.Add(-since), now.Add(-since))
		}
		r := reconciler(t, map[string]string{
			"min-non-active-revisions": "1", "retain-since-create-time": "1h", "retain-since-last-active-time": "1h",
		}, interceptor.Funcs{}, idle("a", 0), idle("b", 20*time.Minute), idle("c", 50*time.Minute), idle("d", 70*time.Minute))
		names, again := left(t, r)
		if names != "a b c" || again != 10*time.Minute {
			t.Fatalf("%s are left, and it comes back in %s", names, again)
		}
		time.Sleep(again)
		if names, again = left(t, r); names != "a b" || again != 0 {
			t.Errorf("later %s are left, and it comes back in %s; want no timer for the minimum", names, again)
		}
	})
}

func TestARevisionThatChangedMeanwhileStays(t *testing.T) {
	changes := 1
	r := reconciler(t, map[string]string{
		"min-non-active-revisions": "0", "max-non-active-revisions": "0",
	}, interceptor.Funcs{Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
		if changes > 0 { // traffic comes back between the look and the deed
			changes--
			rev := &servingv1.Revision{}
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), rev); err != nil {
				return err
			}
			rev.SetRoutingState(servingv1.RoutingStateActive, time.Now())
			if err := c.Update(ctx, rev); err != nil {
				return err
			}
		}
		return c.Delete(ctx, o, opts...)
	}}, idleFor("b", time.Hour))
	if names, again := left(t, r); names != "b" || again == 0 {
		t.Errorf("%q are left, and it comes back in %s", names, again)
	}
	if names, again := left(t, r); names != "b" || again != 0 {
		t.Errorf("then %q are left, and it comes back in %s", names, again)
	}
}

func TestOnlyChangesOfTheLatestAreNews(t *testing.T) {
	was, is := &servingv1.Configuration{}, &servingv1.Configuration{}
	is.Generation = 2
	if p := otherLatest(); p.Update(event.UpdateEvent{ObjectOld: was, ObjectNew: is}) {
		t.Error("a new generation is looked at before its revision is ready")
	}
	is.Status.LatestReadyRevisionName = "b"
	if p := otherLatest(); !p.Update(event.UpdateEvent{ObjectOld: was, ObjectNew: is}) || !p.Create(event.CreateEvent{Object: is}) {
		t.Error("another latest revision is no news")
	}
}

func TestOnlyChangesOfItsOwnSettingsAreNews(t *testing.T) {
	r := reconciler(t, map[string]string{"min-non-active-revisions": "1"}, interceptor.Funcs{})
	if !r.changed() || r.changed() {
		t.Error("settings count as changed once, when they are")
	}
}

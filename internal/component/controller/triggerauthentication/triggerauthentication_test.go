package triggerauthentication

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/platform/kube"
)

// told remembers events as "type reason: message".
type told []string

func (l *told) Emit(_ client.Object, eventType string, cloud kedaeventingv1alpha1.CloudEventType, reason, message string) {
	*l = append(*l, eventType+" "+string(cloud)+" "+reason+": "+message)
}

func user(name, authentication, kind string) *kedav1alpha1.ScaledObject {
	return &kedav1alpha1.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
		Spec: kedav1alpha1.ScaledObjectSpec{Triggers: []kedav1alpha1.ScaleTriggers{
			{Type: "cron"},
			{Type: "redis", AuthenticationRef: &kedav1alpha1.AuthenticationRef{Name: authentication, Kind: kind}},
			{Type: "redis", AuthenticationRef: &kedav1alpha1.AuthenticationRef{Name: authentication, Kind: kind}},
		}},
	}
}

func job(name, authentication string) *kedav1alpha1.ScaledJob {
	return &kedav1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
		Spec:       kedav1alpha1.ScaledJobSpec{Triggers: user("", authentication, "TriggerAuthentication").Spec.Triggers},
	}
}

func reconciler(k kind, events *told, objects ...client.Object) *Reconciler {
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).
		WithStatusSubresource(&kedav1alpha1.TriggerAuthentication{}, &kedav1alpha1.ClusterTriggerAuthentication{}).
		WithIndex(&kedav1alpha1.ScaledObject{}, indexAuthentication, indexed).
		WithIndex(&kedav1alpha1.ScaledJob{}, indexAuthentication, indexed).Build()
	return &Reconciler{client: c, emitter: events, kind: k, seen: map[types.UID]int64{}}
}

func TestTheLifeOfAnAuthentication(t *testing.T) {
	var events told
	ta := &kedav1alpha1.TriggerAuthentication{ObjectMeta: metav1.ObjectMeta{Name: "password", Namespace: "shop", UID: "t", Generation: 1}}
	other := user("elsewhere", "password", "")
	other.Namespace = "office"
	r := reconciler(namespaced, &events, ta, user("b", "password", ""), other, user("c", "password", "ClusterTriggerAuthentication"), job("nightly", "password"))
	key := client.ObjectKeyFromObject(ta)
	reconcile := func() *kedav1alpha1.TriggerAuthentication {
		t.Helper()
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
			t.Fatal(err)
		}
		got := &kedav1alpha1.TriggerAuthentication{}
		if err := r.client.Get(t.Context(), key, got); apierrors.IsNotFound(err) {
			return nil
		} else if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := reconcile()
	want := kedav1alpha1.TriggerAuthenticationStatus{ScaledObjectNamesStr: "b", ScaledJobNamesStr: "nightly"}
	if diff := cmp.Diff(want, got.Status); diff != "" || got.Finalizers[0] != "finalizer.keda.sh" {
		t.Errorf("finalizers %v, status (-want +got):\n%s", got.Finalizers, diff)
	}
	version := got.ResourceVersion
	if got = reconcile(); got.ResourceVersion != version {
		t.Error("a settled authentication was written again")
	}
	if err := r.client.Create(t.Context(), user("a", "password", "TriggerAuthentication")); err != nil {
		t.Fatal(err)
	}
	got = reconcile()
	if got.Status.ScaledObjectNamesStr != "b,a" {
		t.Errorf("users %q, want the new one last", got.Status.ScaledObjectNamesStr)
	}
	got.Generation = 2
	if err := r.client.Update(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Delete(t.Context(), user("b", "", "")); err != nil {
		t.Fatal(err)
	}
	if got = reconcile(); got.Status.ScaledObjectNamesStr != "a" {
		t.Errorf("users %q", got.Status.ScaledObjectNamesStr)
	}
	if err := r.client.Delete(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if got = reconcile(); got != nil || len(r.seen) != 0 {
		t.Errorf("there is %+v still", got)
	}
	const of = "keda.authentication.triggerauthentication."
	if diff := cmp.Diff(told{
		"Normal " + of + "created.v1 TriggerAuthenticationAdded: New TriggerAuthentication configured",
		"Normal " + of + "updated.v1 ClusterTriggerAuthenticationUpdated: ClusterTriggerAuthentication password is updated",
		"Normal " + of + "removed.v1 TriggerAuthenticationDeleted: TriggerAuthentication was deleted",
	}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAClusterAuthenticationIsUsedFromEveryNamespace(t *testing.T) {
	var events told
	ta := &kedav1alpha1.ClusterTriggerAuthentication{ObjectMeta: metav1.ObjectMeta{Name: "password", UID: "t", Generation: 1}}
	far := user("b", "password", "ClusterTriggerAuthentication")
	far.Namespace = "office"
	r := reconciler(cluster, &events, ta, user("a", "password", "ClusterTriggerAuthentication"), far, user("c", "password", ""))
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(ta)}); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(ta), ta); err != nil || ta.Status.ScaledObjectNamesStr != "a,b" {
		t.Errorf("users %q, %v", ta.Status.ScaledObjectNamesStr, err)
	}
	if len(events) != 1 {
		t.Errorf("events %v", events)
	}
}

func TestWhichAuthenticationsAnObjectUses(t *testing.T) {
	request := func(namespace, name string) []ctrl.Request {
		return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}}
	}
	for name, tt := range map[string]struct {
		kind kind
		user client.Object
		want []ctrl.Request
	}{
		"no kind means the namespace's":         {namespaced, user("a", "x", ""), request("shop", "x")},
		"the cluster's are not the namespace's": {namespaced, user("a", "x", "ClusterTriggerAuthentication"), nil},
		"the cluster's have no namespace":       {cluster, user("a", "x", "ClusterTriggerAuthentication"), request("", "x")},
		"jobs use them, too":                    {namespaced, job("a", "x"), request("shop", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.kind.used(tt.user)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOneThatWasToldOfBeforeARestartIsQuiet(t *testing.T) {
	ta := &kedav1alpha1.TriggerAuthentication{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 4, Finalizers: []string{finalizer}}}
	if p := namespaced.decide(state{object: ta}); p.happened != nil || p.finalize {
		t.Errorf("plan %+v", p)
	}
	if p := namespaced.decide(state{object: ta, seen: 3}); p.happened == nil || p.happened.reason != reasonUpdated {
		t.Errorf("a change while it runs: %+v", p)
	}
}

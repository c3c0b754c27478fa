package scaledobject

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"ebb.dev/ebb/internal/domain/activation"
)

const readyEvent = "Normal ScaledObjectReady: ScaledObject is ready for scaling"

func TestANewObjectIsFollowedShownAndTold(t *testing.T) {
	w := newWorld(t, object())
	so := w.reconcile()
	want := kedav1alpha1.ScaledObjectStatus{
		ScaleTargetKind: "apps/v1.Deployment", ScaleTargetGVKR: &deployments, OriginalReplicaCount: new(int32(3)),
		ExternalMetricNames: []string{"s0-redis-jobs", "s1-cron"}, HpaName: "keda-hpa-orders",
		TriggersTypes: new("redis,cron"), AuthenticationsTypes: new("password"),
		Conditions: kedav1alpha1.Conditions{
			{Type: "Ready", Status: "True", Reason: "ScaledObjectReady", Message: "ScaledObject is defined correctly and is ready for scaling"},
			{Type: "Active", Status: "Unknown"},
			{Type: "Fallback", Status: "False", Reason: "NoFallbackFound", Message: "No fallbacks are active on this scaled object"},
			{Type: "Paused", Status: "False"},
		},
	}
	if diff := cmp.Diff(want, so.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if len(so.Finalizers) != 0 || so.Labels["scaledobject.keda.sh/name"] != "orders" {
		t.Errorf("finalizers %v, labels %v", so.Finalizers, so.Labels)
	}
	if h := w.autoscaler("keda-hpa-orders"); h == nil || len(h.Spec.Metrics) != 2 || !metav1.IsControlledBy(h, so) {
		t.Errorf("autoscaler %+v", h)
	}
	if g := w.engine.object; g == nil || *g.Status.ScaleTargetGVKR != deployments || *g.Status.OriginalReplicaCount != 3 {
		t.Errorf("the engine follows %+v", g)
	}
	if diff := cmp.Diff(told{readyEvent}, w.told); diff != "" {
		t.Error(diff)
	}
	if w.writes != 3 { // label, autoscaler, status
		t.Errorf("%d writes, want 3", w.writes)
	}
	w.reconcile()
	w.reconcile()
	if w.writes != 3 || w.targets.reads != 1 || len(w.told) != 1 {
		t.Errorf("a settled object: %d writes, %d reads, events %v", w.writes, w.targets.reads, w.told)
	}
}

func TestWhatTheEngineDecidesIsShownAsItChanges(t *testing.T) {
	w := newWorld(t, object())
	w.reconcile()
	at := metav1.NewTime(born.Add(1500 * time.Millisecond))
	w.engine.state = &activation.State{LastActiveTime: &at, TriggersActivity: map[string]kedav1alpha1.TriggerActivityStatus{"s0-redis-jobs": {IsActive: true}}}
	w.engine.state.Conditions.SetCondition("Active", "True", "ScalerActive", "Scaling is performed because triggers are active")
	w.engine.state.Conditions.SetCondition("Ready", "Unknown", "PartialTriggerError", "Some triggers defined in ScaledObject are not working correctly")
	w.writes = 0
	so := w.reconcile()
	if c := conditionOf(so, "Active"); c.Status != "True" || c.Reason != "ScalerActive" {
		t.Errorf("active %+v", c)
	}
	if c := conditionOf(so, "Ready"); c.Status != "Unknown" || c.Reason != "PartialTriggerError" {
		t.Errorf("ready %+v", c)
	}
	if got := so.Status.LastActiveTime; got == nil || !got.Equal(&metav1.Time{Time: born.Add(time.Second)}) || !so.Status.TriggersActivity["s0-redis-jobs"].IsActive {
		t.Errorf("status %+v", so.Status)
	}
	later := metav1.NewTime(born.Add(time.Minute))
	w.engine.state.LastActiveTime = &later
	w.reconcile()
	if w.writes != 1 {
		t.Errorf("%d writes, want 1: that activity goes on is no news", w.writes)
	}
	w.engine.state.Conditions.SetCondition("Ready", "True", "ScaledObjectReady", "")
	w.engine.state.Conditions.SetCondition("Active", "False", "ScalerNotActive", "")
	so = w.reconcile()
	if w.writes != 2 || !so.Status.LastActiveTime.Equal(&later) {
		t.Errorf("%d writes, last active %v, want %v written with the rest", w.writes, so.Status.LastActiveTime, later)
	}
	if diff := cmp.Diff(told{readyEvent}, w.told); diff != "" {
		t.Errorf("triggers that recover are told: %s", diff)
	}
}

func TestAMissingTargetIsToldOnceAndLookedForAgain(t *testing.T) {
	w := newWorld(t, object())
	w.targets.replicas = map[string]int32{}
	so, result := w.reconcileAgain()
	const message = `ScaledObject doesn't have correct scaleTargetRef specification: deployments.apps "worker" not found`
	if diff := cmp.Diff(kedav1alpha1.Condition{Status: "False", Reason: "ScaledObjectCheckFailed", Message: message}, conditionOf(so, "Ready")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(kedav1alpha1.Condition{Status: "Unknown", Reason: "UnknownState", Message: "ScaledObject check failed"}, conditionOf(so, "Active")); diff != "" {
		t.Error(diff)
	}
	if result.RequeueAfter != 5*time.Second { // a quarter of its age
		t.Errorf("looked for again after %s", result.RequeueAfter)
	}
	w.reconcile()
	want := told{"Warning ScaledObjectCheckFailed: Target resource doesn't exist", "Warning ScaledObjectCheckFailed: " + message}
	if diff := cmp.Diff(want, w.told); diff != "" {
		t.Error(diff)
	}
	if w.engine.object != nil || w.autoscaler("keda-hpa-orders") != nil {
		t.Error("something is scaled")
	}
	w.targets.replicas["worker"] = 1
	so, result = w.reconcileAgain()
	if c := conditionOf(so, "Ready"); c.Status != "True" || result.RequeueAfter != 0 || w.told[2] != readyEvent {
		t.Errorf("with the target there: %+v, events %v", c, w.told)
	}
}

func TestTheAutoscalerFollowsTheObject(t *testing.T) {
	w := newWorld(t, object())
	w.reconcile()
	w.engine.followed = followed("s0-redis-jobs")
	w.change(func(so *kedav1alpha1.ScaledObject) {
		so.Spec.Triggers, so.Spec.MaxReplicaCount = so.Spec.Triggers[:1], new(int32(7))
	})
	so := w.reconcile()
	if h := w.autoscaler("keda-hpa-orders"); len(h.Spec.Metrics) != 1 || h.Spec.MaxReplicas != 7 {
		t.Errorf("spec %+v", h.Spec)
	}
	if diff := cmp.Diff([]string{"s0-redis-jobs"}, so.Status.ExternalMetricNames); diff != "" || *so.Status.TriggersTypes != "redis" {
		t.Errorf("status %+v", so.Status)
	}
	w.change(func(so *kedav1alpha1.ScaledObject) {
		so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{HorizontalPodAutoscalerConfig: &kedav1alpha1.HorizontalPodAutoscalerConfig{Name: "mine"}}
	})
	so = w.reconcile()
	if w.autoscaler("keda-hpa-orders") != nil || w.autoscaler("mine") == nil || so.Status.HpaName != "mine" {
		t.Errorf("after a change of name: %q", so.Status.HpaName)
	}
	if err := w.client.Delete(t.Context(), w.autoscaler("mine")); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	h := w.autoscaler("mine")
	if h == nil {
		t.Fatal("one that somebody deleted stays away")
	}
	h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: "False", Reason: "FailedGetExternalMetric", Message: "no answer"}}
	if err := w.client.Status().Update(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	want := kedav1alpha1.Condition{Status: "False", Reason: "FailedGetExternalMetric", Message: "HPA is not actively scaling: no answer"}
	if diff := cmp.Diff(want, conditionOf(w.reconcile(), "HPAActive")); diff != "" {
		t.Error(diff)
	}
}

func TestWhoseAutoscalerIsTaken(t *testing.T) {
	owned := func(kind, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "v1", Kind: kind, Name: name, UID: "another", Controller: new(true)}}
	}
	for name, tt := range map[string]struct {
		owners []metav1.OwnerReference
		taken  bool
	}{
		"nobody's is": {nil, true},
		"that of a former object of this name is": {owned("ScaledObject", "orders"), true},
		"that of another object is left alone":    {owned("ScaledObject", "other"), false},
		"that of something else is left alone":    {owned("PodAutoscaler", "orders"), false},
	} {
		t.Run(name, func(t *testing.T) {
			h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "keda-hpa-orders", Namespace: "shop", UID: "h", OwnerReferences: tt.owners}}
			w := newWorld(t, object(), h)
			so := w.reconcile()
			if got := metav1.IsControlledBy(w.autoscaler("keda-hpa-orders"), so); got != tt.taken {
				t.Errorf("taken: %v, want %v", got, tt.taken)
			}
			if c := conditionOf(so, "Ready"); (c.Status == "True") != tt.taken {
				t.Errorf("ready %+v", c)
			}
		})
	}
}

func TestWhatTheAPIRefusesIsShown(t *testing.T) {
	w := newWorld(t, object())
	w.refuse = func(o client.Object) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "horizontalpodautoscalers"}, o.GetName(), errors.New("quota"))
	}
	so, result := w.reconcileAgain()
	want := `failed to ensure HPA is correctly created for ScaledObject: horizontalpodautoscalers "keda-hpa-orders" is forbidden: quota`
	if c := conditionOf(so, "Ready"); c.Status != "False" || c.Message != want || result.RequeueAfter == 0 || so.Status.HpaName != "" {
		t.Errorf("ready %+v, again after %s, status %+v", c, result.RequeueAfter, so.Status)
	}
	w.refuse = nil
	if c := conditionOf(w.reconcile(), "Ready"); c.Status != "True" {
		t.Errorf("ready %+v", c)
	}
}

func TestACacheThatIsBehindIsNoProblem(t *testing.T) {
	w := newWorld(t, object())
	w.refuse = func(o client.Object) error {
		return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "horizontalpodautoscalers"}, o.GetName())
	}
	so, result := w.reconcileAgain()
	if result.RequeueAfter != soon || len(w.told) != 0 || so.Status.Conditions != nil {
		t.Errorf("again after %s, events %v, conditions %v", result.RequeueAfter, w.told, so.Status.Conditions)
	}
}

func TestATargetThatKubernetesCannotScaleHasNoAutoscaler(t *testing.T) {
	w := newWorld(t, object())
	w.reconcile()
	w.targets.unshown = true
	so := w.reconcile()
	if w.autoscaler("keda-hpa-orders") != nil || so.Status.HpaName != "" {
		t.Errorf("the autoscaler stays; status %+v", so.Status)
	}
	if c := conditionOf(so, "Ready"); c.Status != "True" || w.engine.object == nil || len(so.Status.ExternalMetricNames) != 2 {
		t.Errorf("ready %+v, status %+v", c, so.Status)
	}
}

func TestWhichChangesOfAutoscalersMatter(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*autoscalingv2.HorizontalPodAutoscaler)
		want   bool
	}{
		"numbers do not": {func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Status.DesiredReplicas = 4 }, false},
		"a bound does":   {func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.MaxReplicas = 4 }, true},
		"a label does":   {func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Labels["team"] = "red" }, true},
		"whether it scales does": {func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive, Status: "False"}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := decide(fine()).create
			after := before.DeepCopy()
			tt.change(after)
			if got := shown.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after}); got != tt.want {
				t.Errorf("it matters: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAYoungObjectsStatusIsWrittenOnce(t *testing.T) {
	w := newWorld(t, object())
	w.now = func() time.Time { return born.Add(300 * time.Millisecond) }
	so, result := w.reconcileAgain()
	if len(so.Status.Conditions) != 0 || result.RequeueAfter != young-300*time.Millisecond || w.engine.object == nil {
		t.Errorf("before the engine decided: status %+v, again after %s", so.Status, result.RequeueAfter)
	}
	w.targets.replicas["worker"] = 8 // the engine's doing
	w.engine.state = &activation.State{}
	w.engine.state.Conditions.SetCondition("Active", "True", "ScalerActive", "")
	so, result = w.reconcileAgain()
	if conditionOf(so, "Active").Status != "True" || conditionOf(so, "Ready").Status != "True" || result.RequeueAfter != 0 {
		t.Errorf("once it did: status %+v, again after %s", so.Status, result.RequeueAfter)
	}
	if n := so.Status.OriginalReplicaCount; n == nil || *n != 3 {
		t.Errorf("originally %v replicas, want the 3 before the engine", n)
	}
	if w.writes != 3 { // label, autoscaler, status
		t.Errorf("%d writes, want 3", w.writes)
	}
}

func TestAYoungObjectDoesNotWaitForASlowTrigger(t *testing.T) {
	w := newWorld(t, object())
	w.now = func() time.Time { return born.Add(young) }
	if so := w.reconcile(); conditionOf(so, "Ready").Status != "True" {
		t.Errorf("status %+v", so.Status)
	}
}

func TestAnObjectOfTheSameNameIsAnother(t *testing.T) {
	w := newWorld(t, object())
	so := w.reconcile()
	if err := w.client.Delete(t.Context(), so); err != nil {
		t.Fatal(err)
	}
	next := object()
	next.UID = "next-uid"
	if err := w.client.Create(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	w.reconcile()
	w.reconcile()
	if diff := cmp.Diff(told{readyEvent, "Warning ScaledObjectDeleted: ScaledObject was deleted", readyEvent}, w.told); diff != "" {
		t.Error(diff)
	}
	if w.engine.unfollowed != 1 {
		t.Errorf("the engine let go %d times, want once: what it knows is of the former", w.engine.unfollowed)
	}
}

func TestWhatTheCacheLacksIsNotMadeTwice(t *testing.T) {
	w := newWorld(t, object())
	w.reconcile()
	w.hide = true
	w.writes = 0
	if so := w.reconcile(); w.writes != 0 || so.Status.HpaName != "keda-hpa-orders" {
		t.Errorf("%d writes, status %+v", w.writes, so.Status)
	}
	w.now = func() time.Time { return born.Add(time.Minute) }
	if w.reconcile(); w.writes == 0 {
		t.Error("an autoscaler that is gone for long is not made again")
	}
}

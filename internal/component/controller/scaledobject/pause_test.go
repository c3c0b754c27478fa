package scaledobject

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

const (
	pausedEvent   = "Normal ScaledObjectPaused: ScaledObject is paused"
	unpausedEvent = "Normal ScaledObjectUnpaused: pause annotation removed for ScaledObject"
)

func TestPausingAndGoingOn(t *testing.T) {
	w := newWorld(t, object())
	w.reconcile()
	w.change(func(so *kedav1alpha1.ScaledObject) { annotated(so, kedav1alpha1.PausedAnnotation, "true") })
	so := w.reconcile()
	if w.engine.object != nil || w.autoscaler("keda-hpa-orders") != nil || w.targets.replicas["worker"] != 3 {
		t.Errorf("paused: followed %v, replicas %v", w.engine.object, w.targets.replicas)
	}
	ready := kedav1alpha1.Condition{Status: "True", Reason: "ScaledObjectReady", Message: "ScaledObject is paused"}
	if diff := cmp.Diff(ready, conditionOf(so, "Ready")); diff != "" {
		t.Error(diff)
	}
	if c := conditionOf(so, "Paused"); c.Status != "True" || c.Reason != "ScaledObjectPaused" || so.Status.PausedReplicaCount != nil {
		t.Errorf("paused %+v, %v", c, so.Status.PausedReplicaCount)
	}
	w.change(func(so *kedav1alpha1.ScaledObject) { annotated(so, kedav1alpha1.PausedReplicasAnnotation, "5") })
	so = w.reconcile()
	if w.targets.replicas["worker"] != 5 || *so.Status.PausedReplicaCount != 5 {
		t.Errorf("paused at 5: %v, status %v", w.targets.replicas, so.Status.PausedReplicaCount)
	}
	writes := w.writes
	w.reconcile()
	if w.writes != writes {
		t.Errorf("a paused object is written %d times", w.writes-writes)
	}
	w.change(func(so *kedav1alpha1.ScaledObject) { annotated(so, kedav1alpha1.PausedAnnotation, "false") })
	so = w.reconcile()
	if w.engine.object == nil || w.autoscaler("keda-hpa-orders") == nil || so.Status.PausedReplicaCount != nil {
		t.Errorf("going on: followed %v, status %+v", w.engine.object, so.Status)
	}
	if c := conditionOf(so, "Paused"); c.Status != "False" || c.Reason != "ScaledObjectUnpaused" || c.Message != "pause annotation removed for ScaledObject" {
		t.Errorf("paused %+v", c)
	}
	if *so.Status.OriginalReplicaCount != 3 {
		t.Errorf("original count %d", *so.Status.OriginalReplicaCount)
	}
	if diff := cmp.Diff(told{readyEvent, pausedEvent, unpausedEvent}, w.told); diff != "" {
		t.Error(diff)
	}
}

func TestPausedFromTheStart(t *testing.T) {
	w := newWorld(t, annotated(object(), kedav1alpha1.PausedReplicasAnnotation, "0"))
	so := w.reconcile()
	if w.targets.replicas["worker"] != 0 || w.engine.object != nil || w.autoscaler("keda-hpa-orders") != nil {
		t.Errorf("replicas %v", w.targets.replicas)
	}
	if c := conditionOf(so, "Paused"); c.Status != "True" || *so.Status.PausedReplicaCount != 0 {
		t.Errorf("paused %+v", c)
	}
}

func TestADirectionPaused(t *testing.T) {
	w := newWorld(t, annotated(object(), kedav1alpha1.PausedScaleInAnnotation, "true"))
	so := w.reconcile()
	h := w.autoscaler("keda-hpa-orders")
	if h == nil || *h.Spec.Behavior.ScaleDown.SelectPolicy != autoscalingv2.DisabledPolicySelect || h.Spec.Behavior.ScaleUp != nil {
		t.Fatalf("autoscaler %+v", h)
	}
	if c := conditionOf(so, "Paused"); c.Status != "True" || w.engine.object == nil || !slices.Contains(w.told, pausedEvent) {
		t.Errorf("paused %+v, events %v", c, w.told)
	}
	w.change(func(so *kedav1alpha1.ScaledObject) {
		annotated(so, kedav1alpha1.PausedScaleInAnnotation, "true", kedav1alpha1.PausedAnnotation, "true")
	})
	w.reconcile()
	if w.autoscaler("keda-hpa-orders") != nil || w.engine.object != nil {
		t.Error("paused wholly it is still scaled")
	}
	w.change(func(so *kedav1alpha1.ScaledObject) { so.Annotations = nil })
	w.reconcile()
	if h := w.autoscaler("keda-hpa-orders"); h == nil || h.Spec.Behavior != nil {
		t.Errorf("going on: %+v", h)
	}
}

func TestWhatKeepsFromPausingAtANumber(t *testing.T) {
	for name, tt := range map[string]struct {
		count   string
		missing bool
		want    string
	}{
		"it is none":            {"many", false, `failed to scale target to paused replica count: failed to parse paused replica count: strconv.ParseInt: parsing "many": invalid syntax`},
		"the target is missing": {"2", true, `failed to scale target to paused replica count: failed to get scale for target resource: deployments.apps "worker" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, annotated(object(), kedav1alpha1.PausedReplicasAnnotation, tt.count))
			if tt.missing {
				w.targets.replicas = nil
			}
			so := w.reconcile()
			if c := conditionOf(so, "Ready"); c.Status != "False" || c.Message != tt.want {
				t.Errorf("ready %+v", c)
			}
			if c := conditionOf(so, "Paused"); c.Status != "True" {
				t.Errorf("paused %+v", c)
			}
		})
	}
}

func TestAnObjectThatGoes(t *testing.T) {
	for name, tt := range map[string]struct {
		restore bool
		want    int32
	}{
		"leaves its target":                       {false, 8},
		"restores its target where that is asked": {true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			so := object()
			so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{RestoreToOriginalReplicaCount: tt.restore}
			w := newWorld(t, so)
			so = w.reconcile()
			w.targets.replicas["worker"] = 8
			if err := w.client.Delete(t.Context(), so); err != nil {
				t.Fatal(err)
			}
			if so := w.reconcile(); so != nil || w.engine.object != nil {
				t.Errorf("there is %+v still", so)
			}
			if got := w.targets.replicas["worker"]; got != tt.want {
				t.Errorf("%d replicas, want %d", got, tt.want)
			}
			if got := w.told[len(w.told)-1]; got != "Warning ScaledObjectDeleted: ScaledObject was deleted" {
				t.Error(got)
			}
			if h := w.autoscaler("keda-hpa-orders"); tt.restore && h != nil {
				t.Error("the autoscaler could scale the restored target")
			}
			w.reconcile() // of one that is gone
		})
	}
}

func TestTheOriginalCountIsWrittenBeforeAnythingScales(t *testing.T) {
	so := object()
	so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{RestoreToOriginalReplicaCount: true}
	w := newWorld(t, so)
	w.engine.err = errTest
	so = w.reconcile()
	if so.Status.OriginalReplicaCount == nil || *so.Status.OriginalReplicaCount != 3 {
		t.Errorf("status %+v", so.Status)
	}
}

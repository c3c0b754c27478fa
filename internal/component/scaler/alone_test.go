package scaler_test

import (
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

func TestATargetWithoutAutoscalerGoesDownToo(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.alone = true
		q := r.servers["push"]
		r.follow(object("push"))
		q.set(20, nil)
		r.after(time.Second, 4, "work wakes it")
		r.after(time.Hour, 4, "the work stays")
		q.set(6, nil)
		r.after(4*time.Minute, 4, "the highest wish of five minutes counts")
		r.after(2*time.Minute, 2, "after that it goes down")
		account, _ := r.Explain(key)
		if n := len(account.Trail); n != 2 || account.Trail[1].Why != "as s0-push is 6 with a target of 5" {
			t.Errorf("the account is %+v", account)
		}
		if n := r.told("Normal ScaleTargetScaled: Scaled  shop/worker from 4 to 2, as s0-push is 6 with a target of 5"); n != 1 {
			t.Errorf("told %d times; events: %q", n, r.events)
		}
		q.set(0, nil)
		r.after(4*time.Minute, 2, "the cooldown is on")
		r.after(2*time.Minute, 0, "the cooldown is over")
	})
}

func TestATargetWithoutAutoscalerKeepsItsRules(t *testing.T) {
	for what, tt := range map[string]struct {
		change func(*rig, *kedav1alpha1.ScaledObject)
		want   int32
	}{
		"at once if that is said":  {func(*rig, *kedav1alpha1.ScaledObject) {}, 1},
		"no less than the minimum": {func(_ *rig, so *kedav1alpha1.ScaledObject) { so.Spec.MinReplicaCount = new(int32(3)) }, 3},
		"scaling in is paused": {func(_ *rig, so *kedav1alpha1.ScaledObject) {
			so.Annotations["autoscaling.keda.sh/paused-scale-in"] = "true"
		}, 4},
		"scaling out is paused": {func(_ *rig, so *kedav1alpha1.ScaledObject) {
			so.Annotations["autoscaling.keda.sh/paused-scale-out"] = "true"
		}, 1},
		"a source is silent": {func(r *rig, _ *kedav1alpha1.ScaledObject) { r.servers["poll"].err = errServer }, 4},
	} {
		t.Run(what, func(t *testing.T) {
			in(t, func(_ *testing.T, r *rig) {
				r.alone, r.replicas = true, 4
				so := object("push", "poll")
				so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{HorizontalPodAutoscalerConfig: &kedav1alpha1.HorizontalPodAutoscalerConfig{
					Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{
						ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(0))},
					},
				}}
				tt.change(r, so)
				r.servers["push"].n = 4
				r.follow(so)
				r.after(time.Minute, tt.want, "there is little work")
			})
		})
	}
}

func TestAValueCountsWithoutAutoscaler(t *testing.T) {
	in(t, func(_ *testing.T, r *rig) {
		r.alone, r.servers["push"].kind = true, autoscalingv2.ValueMetricType
		r.follow(object("push"))
		r.servers["push"].set(15, nil)
		r.after(time.Second, 3, "three times the target, three times as many as one")
		r.servers["push"].set(15, nil)
		r.after(time.Second, 3, "those that were added are not there yet")
		r.servers["push"].set(5, nil)
		r.after(time.Minute, 3, "all is as it should be")
	})
}

package scaler_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestATargetFollowsItsQueue(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		q := r.servers["push"]
		if f := r.follow(object("push")); len(f.Specs) != 1 || len(f.Failed) != 0 {
			t.Fatalf("Follow() = %+v; want one metric", f)
		}
		r.after(time.Second, 0, "nothing waits")
		q.set(1, nil)
		r.after(300*time.Millisecond, 1, "work wakes it")
		q.set(20, nil)
		r.after(300*time.Millisecond, 4, "more work, before any autoscaler looked")
		q.set(2, nil)
		if got := r.metric("S0-PUSH"); got != "20" {
			t.Errorf("the autoscaler sees %s; want the 20 that replicas were added for", got)
		}
		r.after(30*time.Second, 4, "the autoscaler scales down, not we")
		if got := r.metric("s0-push"); got != "2" {
			t.Errorf("the autoscaler sees %s; want 2", got)
		}
		r.after(5*time.Minute, 4, "work is still there")
		if !slices.Equal(r.history, []int32{1, 4}) {
			t.Errorf("written %d; want nothing while nothing changes", r.history)
		}
		q.set(0, nil)
		r.after(4*time.Minute, 4, "the cooldown is on")
		if got := r.condition(kedav1alpha1.ConditionActive); got != "False ScalerCooldown" {
			t.Errorf("the condition Active is %s", got)
		}
		r.after(2*time.Minute, 0, "the cooldown is over")
		if got := r.condition(kedav1alpha1.ConditionActive); got != "False ScalerNotActive" {
			t.Errorf("the condition Active is %s", got)
		}
		account, known := r.Explain(key)
		if !known || len(account.Trail) != 3 || account.Trail[1].Why != "as s0-push is 20 with a target of 5" {
			t.Errorf("Explain() = %+v, %v", account, known)
		}
	})
}

func TestManyReplicasComeAtOnce(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.follow(object("push"))
		r.after(time.Second, 0, "nothing waits")
		r.servers["push"].set(22, nil)
		r.after(10*time.Millisecond, 5, "from nothing to what is needed")
		if !slices.Equal(r.history, []int32{5}) {
			t.Errorf("written %d; want one step", r.history)
		}
	})
}

func TestAStartComesBeforeWhatIsShownOfIt(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		var shown atomic.Int32
		r.follow(object("push"))
		r.after(time.Second, 0, "nothing waits")
		r.Subscribe(func(types.NamespacedName) { shown.Add(1) })
		r.servers["push"].set(22, nil)
		r.after(200*time.Millisecond, 5, "from nothing to what is needed")
		if want := []string{"begins at 0", "ends at 5"}; !slices.Equal(r.starts, want) || shown.Load() != 0 {
			t.Errorf("starts %q, shown %d times; want %q and nothing shown yet", r.starts, shown.Load(), want)
		}
		r.after(100*time.Millisecond, 5, "a moment later")
		if shown.Load() != 1 || r.condition(kedav1alpha1.ConditionActive) != "True ScalerActive" {
			t.Errorf("shown %d times: %s", shown.Load(), r.condition(kedav1alpha1.ConditionActive))
		}
	})
}

func TestAValueIsLeftToTheAutoscaler(t *testing.T) {
	in(t, func(_ *testing.T, r *rig) {
		r.servers["push"].kind = autoscalingv2.ValueMetricType
		r.follow(object("push"))
		r.servers["push"].set(100, nil)
		r.after(time.Minute, 1, "it wakes the target and no more")
	})
}

func TestASourceThatIsSlowToCloseHoldsUpNoOther(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.servers["poll"].parts = 10 * time.Second
		so := object("poll", "push")
		r.follow(so)
		r.after(time.Second, 0, "nothing waits")
		next := so.DeepCopy()
		next.Generation++
		next.Spec.Triggers[0].Metadata["other"] = "yes"
		begin := time.Now()
		r.follow(next)
		r.servers["push"].set(1, nil)
		r.after(300*time.Millisecond, 1, "the other one wakes it")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %s to follow an object whose source is slow to close", took)
		}
	})
}

func TestASlowSourceHoldsUpNoOther(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.servers["poll"].slow = 8 * time.Second
		r.follow(object("poll", "push"))
		r.after(2*time.Second, 0, "nothing waits")
		r.servers["push"].set(1, nil)
		r.after(700*time.Millisecond, 1, "the quick one wakes it")
		r.servers["push"].set(0, nil)
		r.servers["poll"].set(10, nil)
		r.after(time.Minute, 2, "the slow one counts when it answers")
		if got := r.condition(kedav1alpha1.ConditionReady); got != "" {
			t.Errorf("the condition Ready is %q; want nothing of it", got)
		}
	})
}

func TestASlowSourceScalesInAtItsInterval(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		q := r.servers["poll"]
		q.slow = 8 * time.Second
		q.set(1, nil)
		so := object("poll", "push")
		so.Spec.CooldownPeriod = new(int32(0))
		r.follow(so)
		r.after(10*time.Second, 1, "there is work")
		q.set(0, nil)
		r.after(30*time.Second, 0, "there is none")
		if n := q.questions(); n != 2 {
			t.Errorf("asked %d times in two intervals; want twice", n)
		}
	})
}

func TestWhatIsUnknownTakesNothingAway(t *testing.T) {
	for what, kinds := range map[string][]string{
		"a type that is not built in": {"push", "elsewhere"},
		"a source that never answers": {"push", "poll"},
	} {
		t.Run(what, func(t *testing.T) {
			in(t, func(_ *testing.T, r *rig) {
				r.servers["poll"].err = errServer
				r.replicas = 3
				r.follow(object(kinds...))
				r.after(time.Hour, 3, "who knows whether there is work")
				r.servers["push"].set(50, nil)
				r.after(time.Second, 7, "the other trigger counts, within the rules for scaling up")
			})
		})
	}
}

func TestAFailingSourceIsToldOnceAndFallsBack(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		so := object("push", "poll")
		so.Spec.Fallback = &kedav1alpha1.Fallback{FailureThreshold: 3, Replicas: 6}
		r.follow(so)
		r.after(time.Second, 0, "nothing waits")
		r.servers["poll"].set(0, errServer)
		for range 50 { // pushes of the other one do not make it fail more often
			r.servers["push"].set(0, nil)
			r.after(time.Second, 0, "it has not failed often enough")
		}
		r.after(2*time.Minute, 6, "the fallback is in force") // HPA's policy allows 4 more than 1, then more
		if got := r.condition(kedav1alpha1.ConditionFallback); got != "True FallbackExists" {
			t.Errorf("the condition Fallback is %s", got)
		}
		if n := r.told("Warning KEDAScalerFailed: nobody answers"); n != 1 {
			t.Errorf("told %d times; want once", n)
		}
		r.servers["poll"].set(0, nil)
		r.after(time.Minute, 6, "the cooldown is on")
		if got := r.condition(kedav1alpha1.ConditionFallback); got != "False NoFallbackFound" {
			t.Errorf("the condition Fallback is %s", got)
		}
	})
}

func TestCredentialsRotate(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		rotate := func(password string, err error) {
			r.mu.Lock()
			r.auth, r.authErr = map[string]string{"password": password}, err
			signs := slices.Clone(r.signs)
			r.mu.Unlock()
			for _, changed := range signs {
				changed()
			}
			<-time.After(time.Second)
			synctest.Wait()
		}
		built := func() int { return r.told("Normal KEDAScalersStarted: Scaler push is built") }
		r.follow(object("push"))
		r.after(time.Second, 0, "nothing waits")
		rotate("", nil)
		if n := built(); n != 1 {
			t.Errorf("%d sources were made; want 1, as nothing changed", n)
		}
		rotate("new", nil)
		if n := built(); n != 2 {
			t.Errorf("%d sources were made; want another one for the new password", n)
		}
		rotate("", errors.New("the vault is sealed"))
		r.servers["push"].set(1, nil)
		r.after(time.Second, 1, "what it had before still opens the door")
		if n := built(); n != 2 {
			t.Errorf("%d sources were made; want none while the vault is sealed", n)
		}
	})
}

func TestOnlyWhatChangedIsMadeAnew(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		so := object("push", "poll")
		so.Spec.Triggers[1].Metadata["broken"] = "yes"
		if f := r.follow(so); len(f.Specs) != 1 || len(f.Failed) != 1 || f.Failed[0].Err.Error() != "broken is not known" {
			t.Errorf("Follow() = %+v; want one that works and one that does not", f)
		}
		r.after(10*time.Minute, 0, "nothing waits")
		if n := r.told("Normal KEDAScalersStarted: Scaler push is built"); n != 1 {
			t.Errorf("the one that works was made %d times; want once", n)
		}
		next := so.DeepCopy()
		next.Generation++
		delete(next.Spec.Triggers[1].Metadata, "broken")
		if f := r.follow(next); len(f.Specs) != 2 {
			t.Errorf("Follow() = %+v; want both", f)
		}
		if n := r.told("Normal KEDAScalersStarted: Scaler push is built"); n != 1 {
			t.Errorf("the one that works was made %d times; want once", n)
		}
	})
}

func TestOneSlowAnswerMakesNoLongPause(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		q := r.servers["poll"]
		q.slow = time.Millisecond
		so := object("poll")
		so.Annotations["ebb.dev/fast-poll"] = "true"
		r.follow(so)
		r.after(time.Minute, 0, "nothing waits")
		q.mu.Lock()
		q.slow = 40 * time.Millisecond
		q.mu.Unlock()
		r.after(200*time.Millisecond, 0, "one answer is slow")
		q.mu.Lock()
		q.slow = time.Millisecond
		q.mu.Unlock()
		r.after(time.Second, 0, "the next are not")
		q.set(1, nil)
		r.after(time.Second, 1, "work comes thereafter")
	})
}

func TestHowOftenSourcesAreAsked(t *testing.T) {
	for what, tt := range map[string]struct {
		annotation string
		slow       time.Duration
		from, to   int // questions in ten minutes, 20 of which the interval has
	}{
		"by the interval":                   {"", 0, 19, 22},
		"often, when that costs little":     {"true", time.Millisecond, 1900, 3001},
		"less often, when it costs more":    {"true", 30 * time.Millisecond, 190, 225},
		"by the interval, when it is heavy": {"true", 2 * time.Second, 19, 22},
	} {
		t.Run(what, func(t *testing.T) {
			in(t, func(t *testing.T, r *rig) {
				r.servers["poll"].slow = tt.slow
				so := object("poll")
				so.Annotations["ebb.dev/fast-poll"] = tt.annotation
				r.follow(so)
				r.after(10*time.Minute, 0, "nothing waits")
				if n := r.servers["poll"].questions(); n < tt.from || n > tt.to {
					t.Errorf("asked %d times in ten minutes; want %d to %d", n, tt.from, tt.to)
				}
			})
		})
	}
}

func TestAQuestionIsNoReasonToScaleIn(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		q := r.servers["poll"]
		so := object("poll")
		so.Spec.PollingInterval, so.Spec.CooldownPeriod = new(int32(75)), new(int32(0))
		q.set(1, nil)
		r.follow(so)
		r.after(25*time.Second, 1, "there is work")
		q.set(0, nil)
		for range 3 {
			if got := r.metric("s0-poll"); got != "0" {
				t.Errorf("the autoscaler sees %s; want 0", got)
			}
			r.after(15*time.Second, 1, "the interval is not over")
		}
		q.slow = 7 * time.Second
		r.metric("s0-poll")
		r.after(10*time.Second, 0, "the answer to a question was late, until the interval was over")
		q.slow = 0
		q.set(20, nil)
		if got := r.metric("s0-poll"); got != "20" {
			t.Errorf("the autoscaler sees %s; want 20", got)
		}
		r.after(time.Second, 4, "work that a question finds is not left waiting")
	})
}

func TestCachedMetricsStandForAnInterval(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		so := object("push")
		so.Spec.Triggers[0].UseCachedMetrics = true
		r.follow(so)
		r.after(time.Second, 0, "nothing waits")
		r.servers["push"].set(20, nil)
		r.after(time.Second, 4, "work wakes it all the same")
		r.servers["push"].set(40, nil)
		r.after(10*time.Second, 4, "its value stands")
		if got := r.metric("s0-push"); got != "20" {
			t.Errorf("the autoscaler sees %s; want 20", got)
		}
		r.after(30*time.Second, 8, "the interval is over")
	})
}

func TestWhatTheAutoscalerReadsAlwaysWorks(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.follow(object("cpu"))
		r.after(time.Second, 1, "it cannot be woken otherwise")
		if got := r.condition(kedav1alpha1.ConditionActive); got != "True ScalerActive" {
			t.Errorf("the condition Active is %s", got)
		}
	})
	in(t, func(_ *testing.T, r *rig) {
		r.replicas = 2
		r.follow(object("cpu", "push"))
		r.after(10*time.Minute, 0, "beside another trigger it wakes nobody")
	})
}

func TestFormula(t *testing.T) {
	formula := func(text string) *kedav1alpha1.ScaledObject {
		so := object("push", "poll")
		so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{Formula: text, Target: "2", ActivationTarget: "3"}}
		return so
	}
	in(t, func(t *testing.T, r *rig) {
		r.servers["poll"].n = 2
		r.follow(formula("t0 + t1"))
		r.after(time.Second, 0, "the sum is not above the activation")
		r.servers["push"].set(5, nil)
		r.after(time.Second, 4, "seven by two")
		if got := r.metric("composite-metric"); got != "7" {
			t.Errorf("the autoscaler sees %s; want 7", got)
		}
	})
	in(t, func(t *testing.T, r *rig) {
		for range 2 {
			if _, err := r.Follow(t.Context(), formula("t0 +")); err == nil {
				t.Error("a formula that is none was taken")
			}
		}
		r.after(time.Minute, 0, "nothing is decided")
	})
}

func TestPausing(t *testing.T) {
	in(t, func(_ *testing.T, r *rig) {
		so := object("push")
		so.Annotations[kedav1alpha1.PausedScaleOutAnnotation] = "true"
		r.follow(so)
		r.servers["push"].set(20, nil)
		r.after(time.Minute, 0, "scaling out is paused")
		next := so.DeepCopy()
		next.Annotations = map[string]string{kedav1alpha1.PausedScaleInAnnotation: "true"}
		r.follow(next)
		r.after(time.Second, 4, "it is no longer")
		r.servers["push"].set(0, nil)
		r.after(time.Hour, 4, "scaling in is paused")
		again := so.DeepCopy()
		again.Annotations = nil
		r.follow(again)
		r.after(time.Second, 0, "it is no longer")
	})
}

func TestAPauseCanBeReplaced(t *testing.T) {
	for what, tt := range map[string]struct{ before, soon, later int32 }{
		"what runs is left for a while": {5, 5, 10},
		"work wakes it all the same":    {0, 5, 10},
	} {
		t.Run(what, func(t *testing.T) {
			in(t, func(_ *testing.T, r *rig) {
				r.replicas = tt.before
				r.servers["push"].n = 50
				so := object("push")
				so.Status.Conditions.SetPausedCondition(metav1.ConditionTrue, "ScaledObjectPaused", "ScaledObject is paused")
				r.follow(so)
				r.after(10*time.Second, tt.soon, "the pause has just ended")
				r.after(10*time.Second, tt.soon, "nothing was asked")
				r.servers["push"].set(50, nil)
				r.after(time.Second, tt.later, "the pause is over")
			})
		})
	}
}

func TestPreviewDoesNothing(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		r.servers["push"].n = 12
		a, err := r.Preview(t.Context(), object("push"), nil)
		if err != nil || a.Current != 0 || a.Wish != 3 || !a.Active || a.Triggers[0].Value != 12 {
			t.Errorf("Preview() = %+v, %v; want 3 replicas for 12 of 5", a, err)
		}
		a, err = r.Preview(t.Context(), object("push", "poll"), map[string]float64{"t0": 0, "s1-poll": 20})
		if err != nil || a.Wish != 4 || a.Triggers[0].Value != 0 || a.Triggers[1].Value != 20 {
			t.Errorf("Preview() = %+v, %v; want 4 replicas for the 20 that were given", a, err)
		}
		if _, err := r.Preview(t.Context(), object("push"), map[string]float64{"t7": 0}); err == nil {
			t.Error("a value of no metric was taken")
		}
		r.after(time.Minute, 0, "it was only asked")
		if len(r.history) != 0 || len(r.events) != 0 {
			t.Errorf("written %d, told %q; want nothing", r.history, r.events)
		}
	})
}

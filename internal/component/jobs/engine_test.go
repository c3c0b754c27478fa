package jobs_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/jobs"
)

func TestAJobIsMadeAsKEDAMakesIt(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
			s.Generation = 7
			s.Labels = map[string]string{
				"team": "a", "secret": "b", "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/name": "another",
			}
			s.Annotations = map[string]string{
				kedav1alpha1.ScaledJobExcludedLabelsAnnotation: "secret, app.kubernetes.io/name",
				corev1.LastAppliedConfigAnnotation:             "{}", "note": "x",
			}
		}))
		r.observe(1)
		r.want(1, "one message")
		job := r.jobs()[0]
		if !strings.HasPrefix(job.Name, "orders-") || job.GenerateName != "orders-" || len(job.Name) != len("orders-")+5 {
			t.Errorf("name %q, generated from %q", job.Name, job.GenerateName)
		}
		if diff := cmp.Diff(map[string]string{
			"app.kubernetes.io/name": "orders", "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/version": "1.2.3",
			"app.kubernetes.io/managed-by": "keda-operator", "scaledjob.keda.sh/name": "orders", "team": "a",
		}, job.Labels); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]string{
			"scaledjob.keda.sh/generation": "7", "note": "x",
			kedav1alpha1.ScaledJobExcludedLabelsAnnotation: "secret, app.kubernetes.io/name",
		}, job.Annotations); diff != "" {
			t.Error(diff)
		}
		yes := true
		if diff := cmp.Diff([]metav1.OwnerReference{{
			APIVersion: "keda.sh/v1alpha1", Kind: "ScaledJob", Name: "orders", UID: "uid", Controller: &yes, BlockOwnerDeletion: &yes,
		}}, job.OwnerReferences); diff != "" {
			t.Error(diff)
		}
		template := job.Spec.Template
		if template.GenerateName != "orders-" || template.Labels["scaledjob.keda.sh/name"] != "orders" ||
			template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
			t.Errorf("template %+v", template)
		}
	})
}

func TestTwoQuickObservationsOfOneMessageMakeOneJob(t *testing.T) {
	for _, kind := range []string{"default", "accurate", "eager", "custom"} {
		t.Run(kind, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
					strategy(kind)(s)
					s.Spec.ScalingStrategy.CustomScalingRunningJobPercentage = "0"
				}))
				r.delay(time.Second) // nothing is there yet when the source is asked again
				r.observe(1)
				for range 20 {
					r.observe(1)
					r.wait(100 * time.Millisecond)
				}
				r.want(1, "asked often, while the job is made and pends")
				r.observe(3)
				r.wait(time.Second)
				r.want(3, "two more messages")
			})
		})
	}
}

func TestAJobThatRunsHoldsItsMessageUntilTheQueueShrinks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(strategy("accurate")))
		r.observe(1)
		r.begin(0)
		r.wait(time.Second)
		r.observe(1)
		r.want(1, "running, but its message is still there")
		r.wait(time.Second)
		r.observe(0)
		r.wait(time.Second)
		r.observe(1)
		r.want(2, "it was taken, and another came")
	})
}

func TestAJobThatSettledHoldsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
			strategy("accurate")(s)
			five := int32(5)
			s.Spec.PollingInterval = &five
		}))
		r.observe(1)
		r.begin(0)
		r.observe(1) // another one came as the first was taken: nobody can tell
		r.wait(14 * time.Second)
		r.want(1, "not settled yet")
		r.wait(2 * time.Second) // no poll is needed
		r.want(2, "settled")
	})
}

func TestAnAnswerFromBeforeAJobEndedMakesNoJobForItsMessage(t *testing.T) {
	for _, kind := range []string{"default", "accurate", "eager"} {
		t.Run(kind, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.follow(scaled(strategy(kind)))
				r.observe(1)
				r.begin(0)
				asked := time.Now() // the message is still there, the answer is slow
				r.wait(time.Second)
				r.observer.silent = true
				r.finish(0)
				r.wait(time.Second)
				r.observer.observe(asked)
				r.settle()
				if r.made != 1 {
					t.Errorf("%d jobs were made for one message", r.made)
				}
			})
		})
	}
}

func TestALaterAnswerIsNotUndoneByAnEarlierOne(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		early := time.Now()
		r.wait(time.Second)
		r.observe(0)
		r.observer.set(5)
		r.observer.observe(early)
		r.settle()
		r.want(0, "the earlier answer came late")
	})
}

func TestAJobThatEndsMakesRoomAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) { two := int32(2); s.Spec.MaxReplicaCount = &two }))
		r.observe(5)
		r.want(2, "at most two")
		r.begin(0)
		r.observer.set(4)
		r.finish(0)
		r.wait(time.Millisecond)
		r.want(2, "one finished and was cleaned up, another was made")
		if r.made != 3 {
			t.Errorf("%d were made, want 3", r.made)
		}
	})
}

func TestTheMinimumIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) { two := int32(2); s.Spec.MinReplicaCount = &two }))
		r.observe(0)
		r.want(2, "nothing waits")
		r.observer.trouble = errDown
		r.finish(0)
		r.wait(time.Millisecond)
		r.want(2, "one finished, and nobody knows what waits")
		if status, _ := r.State(key); status.Conditions.GetReadyCondition().Reason != "PartialTriggerError" {
			t.Errorf("conditions %+v", status.Conditions)
		}
	})
}

func TestFinishedJobsGoOldestFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
			one := int32(1)
			s.Spec.SuccessfulJobsHistoryLimit, s.Spec.FailedJobsHistoryLimit = &one, &one
		}))
		r.observe(6)
		r.want(6, "six messages")
		names := make([]string, 6)
		for i, job := range r.jobs() {
			names[i] = job.Name
		}
		r.observer.set(0)
		deleted := func() (out []string) {
			for _, a := range r.client.Actions() {
				if d, ok := a.(interface{ GetName() string }); ok && a.GetVerb() == "delete" {
					out = append(out, d.GetName())
				}
			}
			return out
		}
		r.fail(3) // has no completion time
		r.wait(time.Second)
		r.finish(1)
		r.wait(time.Second)
		if got := deleted(); len(got) > 0 {
			t.Fatalf("deleted %v, one of each kind is kept", got)
		}
		r.fail(2) // the fourth, which failed first, goes
		r.wait(time.Second)
		r.finish(0) // the second goes
		r.wait(time.Second)
		if diff := cmp.Diff([]string{names[3], names[1]}, deleted()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFinishedJobsStayWhilePaused(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := scaled(func(s *kedav1alpha1.ScaledJob) { one := int32(1); s.Spec.MaxReplicaCount = &one })
		r.follow(s)
		r.observe(1)
		r.Unfollow(key)
		r.finish(0)
		r.wait(time.Hour)
		r.observer.observe(time.Now())
		r.settle()
		r.want(1, "paused: it stays, and none is made")
		if _, told := r.State(key); told {
			t.Error("there is a state of what is not followed")
		}
		before := r.jobs()[0].Name
		r.follow(s)
		r.observe(1)
		r.want(1, "goes on: the finished one goes, another is made")
		if r.jobs()[0].Name == before {
			t.Error("it is the same one")
		}
	})
}

func TestPausingBetweenMakingAndSeeingForgetsNoJob(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.delay(5 * time.Second)
		r.observe(1)
		go r.Unfollow(key)
		r.wait(6 * time.Second)
		r.follow(scaled(nil))
		r.observe(1)
		r.wait(6 * time.Second)
		r.want(1, "one message")
	})
}

func TestWhatIsThereIsKnownAtTheStart(t *testing.T) {
	job := func(name, of string, ready int32) *batchv1.Job {
		return &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"scaledjob.keda.sh/name": of}, UID: types.UID(name)},
			Status:     batchv1.JobStatus{Active: 1, Ready: &ready},
		}
	}
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.observe(3)
		r.want(4, "two of its own are there, so one more; and another's")
	}, job("a", "orders", 1), job("b", "orders", 0), job("c", "other", 1))
}

func TestPodsConditionsSayWhatPends(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
			strategy("accurate")(s)
			s.Spec.ScalingStrategy.PendingPodConditions = []string{"Ready", "PodScheduled"}
		}))
		r.observe(1)
		r.begin(0) // its pod is ready for all that its status says, but lacks a condition
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Labels: map[string]string{
				batchv1.JobNameLabel: r.jobs()[0].Name, "scaledjob.keda.sh/name": "orders",
			}},
			Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}}},
		}
		pod, err := r.client.CoreV1().Pods("shop").Create(t.Context(), pod, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r.wait(time.Hour)
		r.observe(1)
		r.want(1, "pending still, however long")
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: "PodScheduled", Status: "True"})
		if _, err := r.client.CoreV1().Pods("shop").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.wait(time.Minute)
		r.observe(1)
		r.want(2, "running and settled")
	})
}

func TestSupersedeNamesTheJobsOfEarlierVersions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.observe(2)
		if names, err := r.Supersede(t.Context(), key, 1); err != nil || names != nil {
			t.Errorf("the version that is followed: %v, %v", names, err)
		}
		names, err := r.Supersede(t.Context(), key, 2)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, job := range r.jobs() {
			have = append(have, job.Name)
		}
		slices.Sort(have)
		if diff := cmp.Diff(have, names); diff != "" {
			t.Error(diff)
		}
		r.observe(9)
		r.want(2, "the earlier version makes none any more")
		r.events()
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) { s.Generation = 2 }))
		if told := r.events(); len(told) > 0 {
			t.Errorf("a new version makes events %q", told)
		}
		r.observe(3)
		r.want(3, "the new one does")
	})
}

func TestStateChangesAreToldOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		told := 0
		r.Subscribe(func(types.NamespacedName) { told++ })
		r.follow(scaled(nil))
		r.observe(0)
		for range 10 {
			r.observe(0)
		}
		if told != 1 {
			t.Errorf("told %d times that nothing waits, want once", told)
		}
		r.observe(1)
		r.begin(0)
		for range 10 {
			r.wait(time.Minute)
			r.observe(1)
		}
		if told != 2 {
			t.Errorf("told %d times, want twice", told)
		}
		status, _ := r.State(key)
		if diff := cmp.Diff(map[string]kedav1alpha1.TriggerActivityStatus{"s0-q": {IsActive: true}}, status.TriggersActivity); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"s0-q"}, status.ExternalMetricNames); diff != "" || status.LastActiveTime == nil {
			t.Errorf("%s, last active %v", diff, status.LastActiveTime)
		}
		r.wantEvent("ScaledJobActive Scaling is performed because triggers are active")
		r.observe(0)
		r.wantEvent("ScaledJobInactive Scaling is not performed because triggers are not active")
	})
}

func TestFollowingTheSameAgainDoesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) { s.Status.Conditions = *kedav1alpha1.GetInitializedConditions() }))
		if r.observer.follows != 1 {
			t.Errorf("followed %d times", r.observer.follows)
		}
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) { s.Labels = map[string]string{"new": "label"} }))
		r.observe(1)
		if r.jobs()[0].Labels["new"] != "label" {
			t.Error("a changed label does not show in jobs")
		}
	})
}

func TestFollowGivesUpWithItsContext(t *testing.T) {
	engine, err := jobs.New(jobs.Config{Client: nil, Observer: &observer{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := engine.Follow(ctx, scaled(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was canceled before it ran", err)
	}
}

func TestWhatIsUnfollowedIsForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.observe(1)
		if _, known := r.Explain(key); !known {
			t.Fatal("nothing to explain")
		}
		r.Unfollow(key)
		r.wait(time.Minute)
		if account, known := r.Explain(key); !known || account.Followed {
			t.Error("its job is there yet: it is known, and not followed")
		}
		if err := r.client.BatchV1().Jobs(key.Namespace).Delete(t.Context(), r.jobs()[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.settle()
		if _, known := r.Explain(key); known {
			t.Error("it is not forgotten with its last job")
		}
	})
}

package jobs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/activation"
	rules "ebb.dev/ebb/internal/domain/jobs"
)

func TestARefusedJobIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.refuse(func(name string) error {
			return apierrors.NewForbidden(schema.GroupResource{Group: "batch", Resource: "jobs"}, name, errors.New("exceeded quota"))
		})
		r.events()
		for range 50 {
			r.observe(1)
			r.wait(100 * time.Millisecond)
		}
		status, _ := r.State(key)
		if c := status.Conditions.GetReadyCondition(); c.Reason != "KEDAJobCreateFailed" ||
			c.Message != `jobs.batch "orders-" is forbidden: exceeded quota` {
			t.Errorf("ready %+v", c)
		}
		r.wantEvent(`KEDAJobCreateFailed Failed to create job orders-: jobs.batch "orders-" is forbidden: exceeded quota`)
		if n := r.refuse(nil); n != 1 {
			t.Errorf("%d tries in five seconds, want 1: whoever grants a quota is slower", n)
		}
		r.wait(10 * time.Second)
		r.want(1, "granted: it is made without another observation")
		if c := status.Conditions.GetActiveCondition(); c.Reason != "ScalerActive" {
			t.Errorf("active %+v", c)
		}
	})
}

func TestALostAnswerMakesNoSecondJob(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.lost = errors.New("connection reset by peer")
		r.observe(1)
		r.want(1, "the first call got through, its answer did not")
		r.observe(1)
		r.want(1, "and once more")
		r.wantEvent("KEDAJobsCreated Created 1 jobs")
	})
}

func TestAFailingTriggerIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.wantEvent("KEDAScalersStarted Scaler redis is built")
		r.observer.trouble = errDown
		for range 3 {
			r.observe(0)
		}
		status, _ := r.State(key)
		ready, active := status.Conditions.GetReadyCondition(), status.Conditions.GetActiveCondition()
		if ready.Status != metav1.ConditionFalse || ready.Reason != "TriggerError" || active.Reason != "ScalerNotActive" {
			t.Errorf("conditions %+v", status.Conditions)
		}
		count := 0
		for _, e := range r.events() {
			if strings.Contains(e, "KEDAScalerFailed server is down") {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%d events, want 1 for three failures", count)
		}
		want := strings.NewReader(`
# HELP keda_scaled_job_errors_total Triggers of a ScaledJob that could not be asked.
# TYPE keda_scaled_job_errors_total counter
keda_scaled_job_errors_total{namespace="shop",scaledJob="orders"} 3
`)
		if err := testutil.GatherAndCompare(r.registry, want, "keda_scaled_job_errors_total"); err != nil {
			t.Error(err)
		}
		account, _ := r.Explain(key)
		if len(account.Triggers) != 1 || account.Triggers[0].Error != "server is down" {
			t.Errorf("account %+v", account)
		}
	})
}

func TestATriggerThatIsNotBuiltInLetsTheOthersWork(t *testing.T) {
	for name, tc := range map[string]struct {
		triggers int
		made     int
	}{"with another": {triggers: 2, made: 2}, "alone": {triggers: 1}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.observer.failed = []activation.FailedTrigger{{Index: tc.triggers - 1, Type: "azure-queue", NotBuiltIn: true}}
				r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
					s.Spec.Triggers = []kedav1alpha1.ScaleTriggers{{Type: "redis"}, {Type: "azure-queue"}}[2-tc.triggers:]
				}))
				if tc.made > 0 {
					r.observe(float64(tc.made))
				}
				r.want(tc.made, "what the other asks for")
				status, told := r.State(key)
				if c := status.Conditions.GetReadyCondition(); !told || c.Reason != "TriggerNotBuiltIn" ||
					!strings.Contains(c.Message, "azure-queue") || !strings.Contains(c.Message, "external") {
					t.Errorf("ready %+v", c)
				}
			})
		})
	}
}

func TestFollowFailsWhenNoTriggerCanBeAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.observer.failed = []activation.FailedTrigger{{Index: 0, Type: "redis", Err: errors.New("no address given")}}
		err := r.Follow(t.Context(), scaled(nil))
		if err == nil || !strings.Contains(err.Error(), "trigger 0 (redis): no address given") {
			t.Errorf("error %v", err)
		}
		r.wantEvent("Warning KEDAScalerFailed no address given")
		r.observe(4)
		r.want(0, "it is not followed")
	})
}

func TestATriggerThatFailsLooksLikeNoWorkThatWasTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
			strategy("accurate")(s)
			s.Spec.ScalingStrategy.MultipleScalersCalculation = "sum"
			s.Spec.Triggers = []kedav1alpha1.ScaleTriggers{{Type: "redis"}, {Type: "redis"}}
		}))
		observe := func(first, second rules.Answer) {
			second.Index = 1
			r.Observe(key, rules.Observation{Began: time.Now(), Triggers: []rules.Answer{first, second}})
			r.wait(10 * time.Millisecond)
		}
		observe(trigger(1, nil), trigger(1, nil))
		r.want(2, "one message each")
		r.begin(0)
		r.begin(1)
		observe(trigger(1, nil), trigger(0, errDown)) // less by one, and nothing was taken
		observe(trigger(1, nil), trigger(1, nil))
		r.want(2, "both are there again")
		observe(trigger(1, nil), trigger(0, errDown))
		observe(trigger(0, nil), trigger(0, errDown)) // one was taken, while the other still fails
		observe(trigger(1, nil), trigger(0, errDown))
		r.want(2, "one more came, and there may be a job for it yet")
		observe(trigger(2, nil), trigger(0, errDown))
		r.want(3, "two are there and one job may take one of them")
	})
}

func TestATriggerMayGetItsSourceLater(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.observer.failed = []activation.FailedTrigger{{Index: 1, Type: "redis", Err: errors.New("no such secret")}}
		r.follow(scaled(func(s *kedav1alpha1.ScaledJob) {
			s.Spec.Triggers = []kedav1alpha1.ScaleTriggers{{Type: "redis"}, {Type: "redis"}}
		}))
		r.wantEvent("Warning KEDAScalerFailed no such secret")
		reason := func() string {
			status, _ := r.State(key)
			return status.Conditions.GetReadyCondition().Reason
		}
		r.observe(1)
		if got := reason(); got != "PartialTriggerError" {
			t.Errorf("ready: %s", got)
		}
		second := trigger(1, nil)
		second.Index = 1
		r.Observe(key, rules.Observation{Began: time.Now(), Triggers: []rules.Answer{trigger(1, nil), second}})
		r.settle()
		if got := reason(); got != "ScaledJobReady" {
			t.Errorf("ready: %s", got)
		}
	})
}

func TestASlowSourceHoldsUpNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.observer.slow = time.Minute
		for i := range 20 { // more than there are workers
			go func() {
				_ = r.Follow(t.Context(), scaled(func(s *kedav1alpha1.ScaledJob) { s.Name = fmt.Sprintf("slow-%d", i) }))
			}()
		}
		r.settle()
		for i := range 20 {
			r.Observe(types.NamespacedName{Namespace: key.Namespace, Name: fmt.Sprintf("slow-%d", i)},
				rules.Observation{Began: time.Now(), Triggers: []rules.Answer{trigger(1, nil)}})
		}
		r.observe(1)
		r.want(1, "while the others' sources are being made")
		r.wait(time.Minute)
		r.want(21, "when they are made, with what they said meanwhile")
	})
}

func TestAJobThatNeverShowsIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.follow(scaled(nil))
		r.refuse(func(string) error { return errDown }) // twice without an answer: it may be there, or not
		r.observe(1)
		r.refuse(nil)
		r.wait(30 * time.Second)
		r.observe(1)
		r.want(0, "it may be on its way")
		r.wait(40 * time.Second)
		r.observe(1)
		r.want(1, "it is not")
		r.fail(0)
		r.Unfollow(key)
		r.wait(10 * time.Minute)
		if _, known := r.Explain(key); known {
			t.Error("the object is not forgotten for a job that never was")
		}
	})
}

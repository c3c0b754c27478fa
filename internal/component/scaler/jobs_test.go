package scaler_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/domain/jobs"
)

func TestJobsAreToldOfAllTriggersAtOnce(t *testing.T) {
	in(t, func(t *testing.T, r *rig) {
		job := &kedav1alpha1.ScaledJob{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Generation: 1}}
		for _, kind := range []string{"push", "poll", "elsewhere"} {
			job.Spec.Triggers = append(job.Spec.Triggers, kedav1alpha1.ScaleTriggers{Type: kind})
		}
		r.servers["poll"].slow = 2 * time.Second
		failed, err := r.Jobs().Follow(t.Context(), job)
		if err != nil || len(failed) != 1 || failed[0].Index != 2 || !failed[0].NotBuiltIn {
			t.Fatalf("Follow() = %+v, %v; want the third not to be built in", failed, err)
		}
		last := func(after time.Duration) jobs.Observation {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.seen) == 0 {
				t.Fatal("nothing was told")
			}
			return r.seen[len(r.seen)-1]
		}
		if seen := last(5 * time.Second); len(seen.Triggers) != 2 || seen.Triggers[1].Targets[0] != (jobs.Target{Metric: "s1-poll", Average: 5}) {
			t.Errorf("told %+v; want both triggers", seen)
		}
		began := time.Now()
		r.servers["push"].set(3, nil)
		seen := last(5 * time.Second)
		if len(seen.Triggers) != 2 || seen.Triggers[0].Readings[0] != (jobs.Reading{Metric: "s0-push", Value: 3, Active: true}) || seen.Began.Before(began) {
			t.Errorf("told %+v; want 3 of the first, both asked after %s", seen, began)
		}
		r.servers["poll"].set(0, errServer)
		if seen := last(time.Minute); !errors.Is(seen.Triggers[1].Err, errServer) || seen.Triggers[0].Err != nil {
			t.Errorf("told %+v; want the second to fail", seen)
		}
		n := len(r.seen)
		r.Jobs().Refresh(key)
		<-time.After(5 * time.Second)
		synctest.Wait()
		if len(r.seen) == n {
			t.Error("nothing was told after it was asked for")
		}
	})
}

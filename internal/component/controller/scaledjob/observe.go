package scaledjob

import (
	"context"
	"errors"
	"fmt"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	rules "ebb.dev/ebb/internal/domain/jobs"
)

// What goes before the cause in a condition.
const (
	atTemplate = "ScaledJob.spec.jobTargetRef not found"
	atTriggers = "ScaledJob doesn't have correct triggers specification"
	atMetric   = "Cannot set metricType in ScaledJob triggers"
	atJobs     = "Cannot get list of Jobs owned by this scaledJob"
	atEnsuring = "Failed to ensure ScaledJob is correctly created"
)

var errMetricType = errors.New("metricType is set in one of the ScaledJob scaler")

// state is all that matters of a ScaledJob.
type state struct {
	object *kedav1alpha1.ScaledJob
	// problem keeps it from being followed; nil if nothing does.
	problem *problem
	// engine is what the engine decided; nil before it did.
	engine *kedav1alpha1.ScaledJobStatus
}

// A problem keeps a ScaledJob from being ready.
type problem struct{ message string }

func failing(at string, err error) *problem {
	if err == nil {
		return &problem{at}
	}
	return &problem{at + ": " + err.Error()}
}

// observe has the engine follow the ScaledJob as it is, or not at all, and gathers what came of it.
func (r *Reconciler) observe(ctx context.Context, job *kedav1alpha1.ScaledJob) (*state, error) {
	s := &state{object: job, problem: check(job)}
	if job.NeedToBePausedByAnnotation() || s.problem != nil {
		r.engine.Unfollow(keyOf(job))
		return s, nil
	}
	if s.problem = r.follow(ctx, job); s.problem != nil {
		return s, ctx.Err()
	}
	if status, told := r.engine.State(keyOf(job)); told {
		s.engine = &status
	}
	return s, nil
}

// check finds what is wrong with the ScaledJob itself; nothing matters of a paused one but its template.
func check(job *kedav1alpha1.ScaledJob) *problem {
	if job.Spec.JobTargetRef == nil {
		return failing(atTemplate, nil)
	}
	if job.NeedToBePausedByAnnotation() {
		return nil
	}
	if err := kedav1alpha1.ValidateTriggers(job.Spec.Triggers); err != nil {
		return failing(atTriggers, err)
	}
	for i := range job.Spec.Triggers {
		if job.Spec.Triggers[i].MetricType != "" {
			return failing(atMetric, errMetricType)
		}
	}
	return nil
}

// follow deletes Jobs of earlier versions, unless they are to finish, and has the engine go on with
// this one.
func (r *Reconciler) follow(ctx context.Context, job *kedav1alpha1.ScaledJob) *problem {
	if !rules.Gradual(job.Spec.RolloutStrategy, job.Spec.Rollout.Strategy) {
		outdated, err := r.engine.Supersede(ctx, keyOf(job), job.Generation)
		if err != nil {
			return failing(atJobs, err)
		}
		if p := r.deleteOutdated(ctx, job, outdated); p != nil {
			return p
		}
	}
	if err := r.engine.Follow(ctx, job); err != nil {
		return failing(atEnsuring, err)
	}
	return nil
}

// deleteOutdated deletes Jobs of earlier versions.
func (r *Reconciler) deleteOutdated(ctx context.Context, job *kedav1alpha1.ScaledJob, names []string) *problem {
	if len(names) == 0 {
		return nil
	}
	r.tell(job, cleanupStarted(len(names)))
	policy := metav1.DeletePropagationBackground
	if job.Spec.Rollout.PropagationPolicy == "foreground" {
		policy = metav1.DeletePropagationForeground
	}
	for _, name := range names {
		old := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: name}}
		if err := client.IgnoreNotFound(r.client.Delete(ctx, old, client.PropagationPolicy(policy))); err != nil {
			r.tell(job, cleanupFailed(name, err))
			return failing(fmt.Sprintf("Not able to delete job: %s", name), err)
		}
	}
	r.tell(job, cleanupCompleted(len(names)))
	return nil
}

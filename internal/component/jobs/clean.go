package jobs

import (
	"context"
	"fmt"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	rules "ebb.dev/ebb/internal/domain/jobs"
)

// clean deletes finished Jobs beyond those that the object keeps, the oldest first.
func (e *Engine) clean(ctx context.Context, o *object, scaled *kedav1alpha1.ScaledJob) error {
	known := map[string]*batchv1.Job{}
	var ended []rules.Finished
	for _, job := range e.jobsOf(o.key) {
		if kind := finished(job); kind != "" && !o.isDeleted(job) {
			known[job.Name] = job
			ended = append(ended, rules.Finished{
				Name: job.Name, Failed: kind == batchv1.JobFailed, Ended: endedAt(job), Created: job.CreationTimestamp.Time,
			})
		}
	}
	for _, f := range rules.Excess(ended, history(scaled.Spec.SuccessfulJobsHistoryLimit), history(scaled.Spec.FailedJobsHistoryLimit)) {
		if err := e.deleteJob(ctx, known[f.Name]); err != nil {
			return fmt.Errorf("deleting finished job %s/%s: %w", o.key.Namespace, f.Name, err)
		}
		o.noteDeleted(known[f.Name])
	}
	return nil
}

func history(limit *int32) int {
	if limit == nil {
		return rules.DefaultHistory
	}
	return int(*limit)
}

// endedAt is when a finished Job ended: one that failed has no completion time.
func endedAt(job *batchv1.Job) time.Time {
	if job.Status.CompletionTime != nil {
		return job.Status.CompletionTime.Time
	}
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return job.CreationTimestamp.Time
}

// deleteJob deletes that very Job; one that is gone already is no error.
func (e *Engine) deleteJob(ctx context.Context, job *batchv1.Job) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	background := metav1.DeletePropagationBackground
	err := e.client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: metav1.NewUIDPreconditions(string(job.UID)),
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// isDeleted tells whether a Job that is still seen, or on its way out, needs no deleting.
func (o *object) isDeleted(job *batchv1.Job) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, deleted := o.deleted[job.UID]
	return deleted || job.DeletionTimestamp != nil
}

func (o *object) noteDeleted(job *batchv1.Job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deleted[job.UID] = struct{}{}
}

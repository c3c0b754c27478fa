package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	rules "ebb.dev/ebb/internal/domain/jobs"
)

// The names by which Jobs and pods belong to ScaledJobs.
const (
	nameLabel            = "scaledjob.keda.sh/name"
	generationAnnotation = "scaledjob.keda.sh/generation"
)

// The indices.
const (
	byScaledJob = "scaledJob"
	byJob       = "job"
)

// watchJobs prepares to watch the Jobs of all ScaledJobs.
func (e *Engine) watchJobs() error {
	e.factory = informers.NewSharedInformerFactoryWithOptions(e.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = nameLabel }),
		informers.WithTransform(lean))
	e.jobs = e.factory.Batch().V1().Jobs().Informer()
	if err := e.jobs.AddIndexers(cache.Indexers{byScaledJob: func(o any) ([]string, error) {
		if job, ok := o.(*batchv1.Job); ok {
			return []string{owner(job).String()}, nil
		}
		return nil, nil
	}}); err != nil {
		return fmt.Errorf("indexing jobs: %w", err)
	}
	_, err := e.jobs.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { e.sawJob(o) },
		UpdateFunc: func(_, o any) { e.sawJob(o) },
		DeleteFunc: e.lostJob,
	})
	if err != nil {
		return fmt.Errorf("watching jobs: %w", err)
	}
	return nil
}

// watchPods watches the pods of all ScaledJobs, from the first call on, and waits until those that there
// are are known.
func (e *Engine) watchPods(ctx context.Context) error {
	e.mu.Lock()
	pods, running := e.pods, e.running
	first := pods == nil
	if first {
		pods = e.factory.Core().V1().Pods().Informer()
		e.pods = pods
	}
	e.mu.Unlock()
	if first {
		if err := pods.AddIndexers(cache.Indexers{byJob: func(o any) ([]string, error) {
			if pod, ok := o.(*corev1.Pod); ok {
				return []string{jobOf(pod).String()}, nil
			}
			return nil, nil
		}}); err != nil {
			return fmt.Errorf("indexing pods: %w", err)
		}
		if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    e.sawPod,
			UpdateFunc: func(_, o any) { e.sawPod(o) },
		}); err != nil {
			return fmt.Errorf("watching pods: %w", err)
		}
		e.factory.StartWithContext(running)
	}
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced) {
		return fmt.Errorf("waiting for the pods that there are: %w", context.Cause(ctx))
	}
	return nil
}

// lean leaves out what nothing here reads.
func lean(o any) (any, error) {
	switch t := o.(type) {
	case *batchv1.Job:
		t.ManagedFields, t.Spec = nil, batchv1.JobSpec{}
		t.Annotations = map[string]string{generationAnnotation: t.Annotations[generationAnnotation]}
	case *corev1.Pod:
		t.ManagedFields, t.Annotations, t.Spec = nil, nil, corev1.PodSpec{}
		t.Status = corev1.PodStatus{Conditions: t.Status.Conditions}
	}
	return o, nil
}

func owner(job *batchv1.Job) types.NamespacedName {
	return types.NamespacedName{Namespace: job.Namespace, Name: job.Labels[nameLabel]}
}

func jobOf(pod *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.Namespace, Name: pod.Labels[batchv1.JobNameLabel]}
}

func (e *Engine) jobsOf(key types.NamespacedName) []*batchv1.Job {
	found, err := e.jobs.GetIndexer().ByIndex(byScaledJob, key.String())
	if err != nil {
		e.log.Error("looking up jobs", "scaledJob", key, "error", err) // there is no such index: never
	}
	out := make([]*batchv1.Job, 0, len(found))
	for _, o := range found {
		if job, ok := o.(*batchv1.Job); ok {
			out = append(out, job)
		}
	}
	return out
}

// followed returns the Job that an informer tells of and the object it is of, if that is followed.
func (e *Engine) followed(o any) (job *batchv1.Job, of *object, ok bool) {
	if late, gone := o.(cache.DeletedFinalStateUnknown); gone {
		o = late.Obj
	}
	if job, ok = o.(*batchv1.Job); !ok {
		return nil, nil, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	of = e.objects[owner(job)]
	return job, of, of != nil
}

// sawJob notes a Job as it is now. An object that is not known yet gets all its Jobs by seed.
func (e *Engine) sawJob(o any) {
	job, known, ok := e.followed(o)
	if !ok {
		return
	}
	work, ask := known.see(job, e.sight(known, job), time.Now())
	if work {
		e.queue.Add(owner(job))
	}
	if ask {
		e.observer.Refresh(owner(job))
	}
}

func (e *Engine) lostJob(o any) {
	job, known, ok := e.followed(o)
	if !ok {
		return
	}
	if known.lose(job, time.Now()) {
		e.observer.Refresh(owner(job))
	}
	if known.idle() {
		e.queue.Add(owner(job))
	}
}

// sawPod has the Job of a pod be looked at.
func (e *Engine) sawPod(o any) {
	if pod, ok := o.(*corev1.Pod); ok {
		if job, found, err := e.jobs.GetStore().GetByKey(jobOf(pod).String()); err == nil && found {
			e.sawJob(job)
		}
	}
}

// seed notes all Jobs of an object.
func (e *Engine) seed(o *object) {
	now := time.Now()
	for _, job := range e.jobsOf(o.key) {
		o.see(job, e.sight(o, job), now)
	}
}

// sight tells what matters of a Job. It runs when a pod of its does; where the object names conditions
// of pods, when one of them has them all.
func (e *Engine) sight(o *object, job *batchv1.Job) rules.Sight {
	s := rules.Sight{Ended: finished(job) != "", Since: job.CreationTimestamp.Time}
	if job.Status.StartTime != nil {
		s.Since = job.Status.StartTime.Time
	}
	o.mu.Lock()
	conditions := conditionsOf(o.scaled)
	o.mu.Unlock()
	if len(conditions) > 0 {
		s.Running = e.anyPodHas(job, conditions)
		return s
	}
	u := job.Status.UncountedTerminatedPods
	s.Running = (job.Status.Ready != nil && *job.Status.Ready > 0) || job.Status.Succeeded > 0 || (u != nil && len(u.Succeeded) > 0)
	return s
}

func (e *Engine) anyPodHas(job *batchv1.Job, conditions []string) bool {
	e.mu.Lock()
	pods := e.pods
	e.mu.Unlock()
	if pods == nil {
		return false
	}
	found, err := pods.GetIndexer().ByIndex(byJob, types.NamespacedName{Namespace: job.Namespace, Name: job.Name}.String())
	return err == nil && slices.ContainsFunc(found, func(o any) bool {
		pod, ok := o.(*corev1.Pod)
		return ok && hasAll(pod, conditions)
	})
}

func hasAll(pod *corev1.Pod, conditions []string) bool {
	for _, want := range conditions {
		if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return string(c.Type) == want && c.Status == corev1.ConditionTrue
		}) {
			return false
		}
	}
	return true
}

// finished returns the condition by which a Job has finished; none while it has not.
func finished(job *batchv1.Job) batchv1.JobConditionType {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

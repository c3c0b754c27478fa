package jobs

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// atOnce is how many Jobs of one object are being made at the same time, callTimeout how long one may
// take.
const (
	atOnce      = 16
	callTimeout = 15 * time.Second
)

// The lengths of names that the API makes up: a prefix, cut, and a random end.
const (
	randomLength = 5
	prefixLength = 63 - randomLength
)

// applied is kubectl's annotation, which holds a whole ScaledJob and says nothing about a Job.
const applied = corev1.LastAppliedConfigAnnotation

// jobName makes up a name as the API would. It is chosen here so that a call whose answer is lost can be
// repeated without making a second Job.
func jobName(scaled string) string {
	prefix := scaled + "-"
	return prefix[:min(len(prefix), prefixLength)] + rand.String(randomLength)
}

// newJob returns the Job to be made of a ScaledJob.
func (e *Engine) newJob(scaled *kedav1alpha1.ScaledJob, name string) *batchv1.Job {
	prefix := scaled.Name + "-"
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, GenerateName: prefix, Namespace: scaled.Namespace,
			Labels:      e.labels(scaled),
			Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(scaled, kedav1alpha1.GroupVersion.WithKind("ScaledJob")),
			},
		},
		Spec: *scaled.Spec.JobTargetRef.DeepCopy(),
	}
	maps.Copy(job.Annotations, scaled.Annotations)
	delete(job.Annotations, applied)
	job.Annotations[generationAnnotation] = strconv.FormatInt(scaled.Generation, 10)
	template := &job.Spec.Template
	template.GenerateName = prefix
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[nameLabel] = scaled.Name
	if template.Spec.RestartPolicy == "" {
		template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure // a Job may not have what pods have else
	}
	return job
}

// labels are a Job's: KEDA's and its ScaledJob's but for those that are to be left out.
func (e *Engine) labels(scaled *kedav1alpha1.ScaledJob) map[string]string {
	out := map[string]string{
		"app.kubernetes.io/name":       scaled.Name,
		"app.kubernetes.io/version":    e.version,
		"app.kubernetes.io/part-of":    scaled.Name,
		"app.kubernetes.io/managed-by": "keda-operator",
	}
	excluded := map[string]bool{}
	for name := range strings.SplitSeq(scaled.Annotations[kedav1alpha1.ScaledJobExcludedLabelsAnnotation], ",") {
		excluded[strings.TrimSpace(name)] = true
	}
	for name, value := range scaled.Labels {
		if !excluded[name] {
			out[name] = value
		}
	}
	out[nameLabel] = scaled.Name // else they would not be found again
	return out
}

// create makes the Jobs of a judgement, side by side. It returns how many there are by it, and why not
// all. Once the API has refused one no more are begun.
func (e *Engine) create(ctx context.Context, o *object, j *judgement) (int, error) {
	if len(j.names) == 0 {
		return 0, nil
	}
	var (
		mu      sync.Mutex // guards the fields below
		created int
		refused error
		group   sync.WaitGroup
	)
	slots := make(chan struct{}, atOnce)
	for _, name := range j.names {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			mu.Lock()
			stop := refused != nil
			mu.Unlock()
			if stop {
				o.notMade(name)
				return
			}
			err := e.createOne(ctx, e.newJob(j.scaled, name))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				created++
				return
			}
			if refused == nil { // the names are random: they say nothing, and would make each error another
				refused = errors.New(strings.ReplaceAll(err.Error(), name, j.scaled.Name+"-"))
			}
			if answered(err) {
				o.notMade(name)
			} // else it may have been made: it is expected until it shows, or for as long as one may hide
		})
	}
	group.Wait()
	e.tellCreated(j.scaled, created, refused)
	return created, refused
}

// createOne makes one Job. A call without an answer is repeated once: the name tells whether the first
// one got through.
func (e *Engine) createOne(ctx context.Context, job *batchv1.Job) error {
	call := func() error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := e.client.BatchV1().Jobs(job.Namespace).Create(ctx, job, metav1.CreateOptions{})
		return err
	}
	err := call()
	if err != nil && !answered(err) && ctx.Err() == nil {
		if err = call(); apierrors.IsAlreadyExists(err) {
			return nil
		}
	}
	return err
}

// answered tells whether the API said that nothing was made.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code != http.StatusGatewayTimeout && !apierrors.IsServerTimeout(err)
}

// notMade takes back that a Job is expected.
func (o *object) notMade(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger.Forget(name)
	delete(o.unseen, name)
}

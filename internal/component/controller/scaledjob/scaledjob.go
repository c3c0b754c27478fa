// Package scaledjob reconciles ScaledJobs: Jobs of earlier versions go, the engine makes new ones for
// the work that waits, and the status tells what came of it.
//
// Reasons and messages of conditions and events are KEDA's: people and tools look for them. Who uses
// which TriggerAuthentication is written by their own controller.
package scaledjob

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"ebb.dev/ebb/internal/component/controller"
)

const (
	// finalizer keeps a ScaledJob until the engine let go; the name is upstream's.
	finalizer = "finalizer.keda.sh"
	// workers is how many ScaledJobs are reconciled at once.
	workers = 8
)

// How long after a problem it is looked at again: a quarter of the ScaledJob's age, but never sooner or
// later than these.
const (
	soonest = time.Second
	latest  = 30 * time.Second
	share   = 4
)

// A Reconciler keeps ScaledJobs followed, and their status.
type Reconciler struct {
	client  client.Client
	engine  controller.JobEngine
	emitter controller.Emitter
	now     func() time.Time
	log     *slog.Logger
}

// Setup adds the controller to the manager.
func Setup(_ context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{client: c.Manager.GetClient(), engine: c.Jobs, emitter: c.Emitter, now: time.Now, log: c.Log}
	c.Jobs.Subscribe(trigger.Fire)
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("scaledjob").
		WithEventFilter(c.Watched()).
		For(&kedav1alpha1.ScaledJob{}).
		WatchesRawSource(trigger).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the scaledjob controller: %w", err)
	}
	return nil
}

// Reconcile brings one ScaledJob, what follows it and its status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job := &kedav1alpha1.ScaledJob{}
	if err := r.client.Get(ctx, req.NamespacedName, job); err != nil {
		if client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("getting scaled job %s: %w", req.NamespacedName, err)
		}
		r.engine.Unfollow(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if job.DeletionTimestamp != nil {
		r.engine.Unfollow(req.NamespacedName)
		return ctrl.Result{}, controller.Settled(r.release(ctx, job))
	}
	if err := r.claim(ctx, job); err != nil {
		return ctrl.Result{}, controller.Settled(err)
	}
	s, err := r.observe(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}
	p := decide(*s)
	if err := r.act(ctx, s, p); err != nil {
		return ctrl.Result{}, controller.Settled(err)
	}
	if p.problem != nil {
		age := r.now().Sub(job.CreationTimestamp.Time)
		return ctrl.Result{RequeueAfter: min(max(age/share, soonest), latest)}, nil
	}
	return ctrl.Result{}, nil
}

// claim puts the finalizer on.
func (r *Reconciler) claim(ctx context.Context, job *kedav1alpha1.ScaledJob) error {
	before := job.DeepCopy()
	if !controllerutil.AddFinalizer(job, finalizer) {
		return nil
	}
	if err := r.client.Patch(ctx, job, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("claiming scaled job %s/%s: %w", job.Namespace, job.Name, err)
	}
	return nil
}

// release lets a ScaledJob go; its Jobs go with it.
func (r *Reconciler) release(ctx context.Context, job *kedav1alpha1.ScaledJob) error {
	after := job.DeepCopy()
	if !controllerutil.RemoveFinalizer(after, finalizer) {
		return nil
	}
	if err := r.client.Patch(ctx, after, client.MergeFromWithOptions(job, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("releasing scaled job %s/%s: %w", job.Namespace, job.Name, err)
	}
	r.tell(job, deleted)
	return nil
}

// act writes the status if it says something new, and only then tells what happened.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) error {
	if equality.Semantic.DeepEqual(s.object.Status, p.status) {
		return nil
	}
	after := s.object.DeepCopy()
	after.Status = p.status
	patch := client.MergeFromWithOptions(s.object, client.MergeFromWithOptimisticLock{})
	if err := r.client.Status().Patch(ctx, after, patch); err != nil {
		err = fmt.Errorf("updating status of scaled job %s/%s: %w", after.Namespace, after.Name, err)
		if controller.Settled(err) != nil {
			r.tell(s.object, updateFailed(err))
		}
		return err
	}
	for _, h := range p.happened {
		r.tell(after, h)
	}
	return nil
}

func (r *Reconciler) tell(job *kedav1alpha1.ScaledJob, h happening) {
	r.emitter.Emit(job, h.kind, h.cloud, h.reason, h.message)
}

func keyOf(job *kedav1alpha1.ScaledJob) types.NamespacedName { return client.ObjectKeyFromObject(job) }

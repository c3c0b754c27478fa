// Package scaledobject reconciles ScaledObjects: their targets are found, the engine follows their
// triggers, a HorizontalPodAutoscaler shows what is followed, and the status tells what came of it.
//
// Reasons and messages of conditions and events are KEDA's: people and tools look for them.
package scaledobject

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
)

const (
	// workers is how many ScaledObjects are reconciled at once.
	workers = 8
	// soon is when the cache has likely caught up with a write.
	soon = 50 * time.Millisecond
	// young is how old a ScaledObject is at most whose first status waits for the engine's first decision,
	// so as to be written once.
	young = 2 * time.Second
	// behind is how long the cache may take at most to show what was created.
	behind = 5 * time.Second
)

// A Reconciler keeps ScaledObjects' targets followed, their HorizontalPodAutoscalers and status.
type Reconciler struct {
	client  client.Client
	engine  controller.Engine
	targets controller.Targets
	emitter controller.Emitter
	now     func() time.Time
	log     *slog.Logger

	mu      sync.Mutex // guards the rest
	checked map[types.NamespacedName]version
	made    map[types.NamespacedName]creation
}

// creation is a HorizontalPodAutoscaler that the cache may not have yet.
type creation struct {
	object *autoscalingv2.HorizontalPodAutoscaler
	until  time.Time
}

// version is a ScaledObject's spec, and how many replicas its target had when that was first seen.
type version struct {
	uid        types.UID
	generation int64 // 0 before the target was seen
	replicas   int32
}

// Setup adds the controller to the manager; Engine, Targets and Emitter must be there.
func Setup(_ context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client: c.Manager.GetClient(), engine: c.Engine, targets: c.Targets, emitter: c.Emitter,
		now: time.Now, log: c.Log, checked: map[types.NamespacedName]version{}, made: map[types.NamespacedName]creation{},
	}
	c.Engine.Subscribe(trigger.Fire)
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("scaledobject").
		WithEventFilter(c.Watched()).
		For(&kedav1alpha1.ScaledObject{}, builder.WithPredicates(asked)).
		Owns(&autoscalingv2.HorizontalPodAutoscaler{}, builder.WithPredicates(shown)).
		WatchesRawSource(trigger).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the scaledobject controller: %w", err)
	}
	return nil
}

// Reconcile brings one ScaledObject, what follows it and its status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s := &state{object: &kedav1alpha1.ScaledObject{}}
	err := r.client.Get(ctx, req.NamespacedName, s.object)
	switch {
	case apierrors.IsNotFound(err):
		r.gone(req.NamespacedName, "")
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("getting scaled object %s: %w", req, err)
	case s.object.DeletionTimestamp != nil:
		r.forget(req.NamespacedName)
		return settled(ctrl.Result{}, r.release(ctx, s.object))
	}
	r.gone(req.NamespacedName, s.object.UID)
	if err := r.claim(ctx, s.object); err != nil {
		return settled(ctrl.Result{}, err)
	}
	if err := r.observe(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	if s.follows() {
		if err := r.follow(ctx, s); err != nil {
			return settled(ctrl.Result{}, err)
		}
	}
	return settled(r.act(ctx, s, decide(*s)))
}

// settled has a reconcile come again soon when the cache was behind: the change that it lacks may be
// one that brings no reconcile of its own.
func settled(result ctrl.Result, err error) (ctrl.Result, error) {
	if err != nil && controller.Settled(err) == nil {
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return result, err
}

// gone lets go of a ScaledObject that is not there any more, and tells so; next is what has its name now.
func (r *Reconciler) gone(key types.NamespacedName, next types.UID) {
	r.mu.Lock()
	before := r.checked[key].uid
	if next != before && next != "" {
		r.checked[key] = version{uid: next}
	}
	r.mu.Unlock()
	if next == before && next != "" {
		return
	}
	if before != "" {
		r.deleted(&kedav1alpha1.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: before}})
	}
	if next == "" {
		r.forget(key)
	} else if before != "" {
		r.engine.Unfollow(key)
	}
}

func (r *Reconciler) deleted(so *kedav1alpha1.ScaledObject) {
	r.emitter.Emit(so, corev1.EventTypeWarning, kedaeventingv1alpha1.ScaledObjectRemovedType,
		"ScaledObjectDeleted", "ScaledObject was deleted")
}

// forget lets go of a ScaledObject that is gone or going.
func (r *Reconciler) forget(key types.NamespacedName) {
	r.engine.Unfollow(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.checked, key)
}

// claim puts on a ScaledObject the label by which metrics are asked for, where admission did not, and the
// finalizer if there is something to be done before it goes. Others go at once, even with nobody here to let
// them; KEDA's have the finalizer always.
func (r *Reconciler) claim(ctx context.Context, so *kedav1alpha1.ScaledObject) error {
	kept := controllerutil.ContainsFinalizer(so, activation.Finalizer) || !restores(so)
	if kept && so.Labels[kedav1alpha1.ScaledObjectOwnerAnnotation] == so.Name {
		return nil
	}
	before := so.DeepCopy()
	if !kept {
		controllerutil.AddFinalizer(so, activation.Finalizer)
	}
	if so.Labels == nil {
		so.Labels = map[string]string{}
	}
	so.Labels[kedav1alpha1.ScaledObjectOwnerAnnotation] = so.Name
	return r.patch(ctx, so, before)
}

func (r *Reconciler) patch(ctx context.Context, next, before *kedav1alpha1.ScaledObject) error {
	with := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, next, with); err != nil {
		return fmt.Errorf("writing the finalizer of scaled object %s/%s: %w", next.Namespace, next.Name, err)
	}
	return nil
}

// patchStatus writes the status of next where it is not that of before.
func (r *Reconciler) patchStatus(ctx context.Context, next, before *kedav1alpha1.ScaledObject) error {
	with := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Status().Patch(ctx, next, with); err != nil {
		return fmt.Errorf("updating status of scaled object %s/%s: %w", next.Namespace, next.Name, err)
	}
	return nil
}

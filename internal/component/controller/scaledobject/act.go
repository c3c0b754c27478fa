package scaledobject

import (
	"context"
	"fmt"
	"slices"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/render/horizontal"
)

// autoscalers are what conflicts are about.
var autoscalers = schema.GroupResource{Group: "autoscaling", Resource: "horizontalpodautoscalers"}

// How long after a problem that may pass it is looked at again: a quarter of the ScaledObject's age,
// but never sooner or later than these.
const (
	soonest = time.Second
	latest  = 30 * time.Second
	share   = 4
)

// act writes the plan, then the status, and tells what happened.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) (ctrl.Result, error) {
	failure, err := r.write(ctx, s, p)
	if err != nil {
		return ctrl.Result{}, err
	}
	if failure != nil {
		p.problem, p.metrics = failure, nil
	}
	age := r.now().Sub(s.object.CreationTimestamp.Time)
	if len(s.object.Status.Conditions) == 0 && p.problem == nil && s.followed != nil && s.engine == nil && age < young {
		return ctrl.Result{RequeueAfter: young - age}, nil
	}
	if err := r.putStatus(ctx, s, p); err != nil {
		return ctrl.Result{}, err
	}
	if p.problem != nil && p.problem.passing {
		return ctrl.Result{RequeueAfter: min(max(age/share, soonest), latest)}, nil
	}
	return ctrl.Result{}, nil
}

// write has the engine let go and writes HorizontalPodAutoscalers and replicas. What the API server
// refuses is a problem to be shown; the error says that the cache was behind.
func (r *Reconciler) write(ctx context.Context, s *state, p plan) (*problem, error) {
	if p.unfollow {
		r.engine.Unfollow(client.ObjectKeyFromObject(s.object))
	}
	at := atHorizontal
	if p.unfollow {
		at = atPausing
	}
	err := r.writeHorizontal(ctx, p)
	if err == nil && p.replicas != nil {
		at = atPausedCount
		err = r.targets.SetReplicas(ctx, activation.Target{
			Kind: s.target.kind, Namespace: s.object.Namespace, Name: s.object.Spec.ScaleTargetRef.Name, By: s.object.Name,
		}, *p.replicas)
	}
	switch {
	case err == nil:
		return nil, nil
	case controller.Settled(err) == nil || ctx.Err() != nil:
		return nil, err
	}
	return failing(at, err).soonOver(), nil
}

func (r *Reconciler) writeHorizontal(ctx context.Context, p plan) error {
	for _, h := range p.remove {
		if err := client.IgnoreNotFound(r.client.Delete(ctx, h, client.Preconditions{UID: &h.UID})); err != nil {
			return err
		}
	}
	switch {
	case p.create != nil:
		err := r.client.Create(ctx, p.create)
		if apierrors.IsAlreadyExists(err) { // the cache is behind
			return apierrors.NewConflict(autoscalers, p.create.Name, err)
		}
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.made[client.ObjectKeyFromObject(p.create)] = creation{p.create, r.now().Add(behind)}
		}
		return err
	case p.update != nil:
		return r.client.Update(ctx, p.update)
	}
	return nil
}

// putStatus writes the status if it says something new, and only then tells what happened.
func (r *Reconciler) putStatus(ctx context.Context, s *state, p plan) error {
	after := conclude(*s, p)
	if !news(s.object.Status, after.Status) {
		return nil
	}
	said := tell(s.object, after, p.problem)
	if err := r.patchStatus(ctx, after, s.object); err != nil {
		if controller.Settled(err) != nil {
			r.emitter.Emit(s.object, corev1.EventTypeWarning, failed, reasonUpdateFailed, err.Error())
		}
		return err
	}
	for _, h := range said {
		r.emitter.Emit(after, h.kind, h.cloud, h.reason, h.message)
	}
	return nil
}

// release gives the target back the replicas it had, if that is wanted, and lets the ScaledObject go.
func (r *Reconciler) release(ctx context.Context, so *kedav1alpha1.ScaledObject) error {
	if !controllerutil.ContainsFinalizer(so, activation.Finalizer) {
		return nil
	}
	if st := so.Status; restores(so) && st.ScaleTargetGVKR != nil && st.OriginalReplicaCount != nil {
		if err := r.restore(ctx, so); err != nil { // what cannot be restored does not stay for that
			r.log.Error("restoring replicas", "scaledObject", client.ObjectKeyFromObject(so).String(), "error", err)
		}
	}
	next := so.DeepCopy()
	controllerutil.RemoveFinalizer(next, activation.Finalizer)
	if err := r.patch(ctx, next, so); err != nil {
		return err
	}
	r.deleted(so)
	return nil
}

// restore writes the replicas the target had, after the HorizontalPodAutoscaler, which would change
// them again.
func (r *Reconciler) restore(ctx context.Context, so *kedav1alpha1.ScaledObject) error {
	for _, name := range slices.Compact([]string{horizontal.Name(so), so.Status.HpaName}) {
		h, err := r.find(ctx, so.Namespace, name)
		if err != nil {
			return err
		}
		if h == nil || !metav1.IsControlledBy(h, so) {
			continue
		}
		if err := client.IgnoreNotFound(r.client.Delete(ctx, h)); err != nil {
			return fmt.Errorf("deleting horizontal pod autoscaler %s: %w", name, err)
		}
	}
	err := r.targets.SetReplicas(ctx, activation.Target{
		Kind: *so.Status.ScaleTargetGVKR, Namespace: so.Namespace, Name: so.Spec.ScaleTargetRef.Name, By: so.Name,
	}, *so.Status.OriginalReplicaCount)
	return client.IgnoreNotFound(err)
}

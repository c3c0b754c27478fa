// Package triggerauthentication reconciles TriggerAuthentications and ClusterTriggerAuthentications:
// their status names who uses them, and events tell of their coming, changes and going. Whoever uses
// one is told of a change by the engine.
package triggerauthentication

import (
	"context"
	"fmt"
	"sync"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/component/controller"
)

// finalizer keeps an authentication until its end was told; the name is upstream's.
const finalizer = "finalizer.keda.sh"

// A Reconciler keeps the authentications of one kind.
type Reconciler struct {
	client  client.Client
	emitter controller.Emitter
	kind    kind

	mu   sync.Mutex // guards seen
	seen map[types.UID]int64
}

// Setup adds the controllers of both kinds to the manager; the Emitter must be there.
func Setup(_ context.Context, c controller.Config) error {
	for _, k := range []kind{namespaced, cluster} {
		r := &Reconciler{client: c.Manager.GetClient(), emitter: c.Emitter, kind: k, seen: map[types.UID]int64{}}
		err := ctrl.NewControllerManagedBy(c.Manager).
			Named(k.controller).
			WithEventFilter(c.Watched()).
			For(k.object(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
			Watches(&kedav1alpha1.ScaledObject{}, k.usage(), builder.WithPredicates(using)).
			Watches(&kedav1alpha1.ScaledJob{}, k.usage(), builder.WithPredicates(using)).
			Complete(r)
		if err != nil {
			return fmt.Errorf("adding the %s controller: %w", k.controller, err)
		}
	}
	return nil
}

// Reconcile brings one authentication's status up to date and tells of its changes.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	err = r.act(ctx, s, r.kind.decide(*s))
	if apierrors.IsConflict(err) { // the cache is behind, and the change it lacks may bring no reconcile
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return ctrl.Result{}, controller.Settled(err)
}

// observe gathers the authentication and who uses it; nil when it is gone.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{object: r.kind.object()}
	if err := r.client.Get(ctx, key, s.object); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	r.mu.Lock()
	s.seen = r.seen[s.object.GetUID()]
	r.mu.Unlock()
	if s.object.GetDeletionTimestamp() != nil {
		return s, nil
	}
	at := []client.ListOption{
		client.MatchingFields{indexAuthentication: r.kind.name + "/" + key.Name}, client.UnsafeDisableDeepCopy,
	}
	if key.Namespace != "" {
		at = append(at, client.InNamespace(key.Namespace))
	}
	var objects kedav1alpha1.ScaledObjectList
	if err := r.client.List(ctx, &objects, at...); err != nil {
		return nil, fmt.Errorf("listing scaled objects that use %s %s: %w", r.kind.name, key, err)
	}
	for i := range objects.Items {
		if objects.Items[i].DeletionTimestamp == nil {
			s.objects = append(s.objects, objects.Items[i].Name)
		}
	}
	var jobs kedav1alpha1.ScaledJobList
	if err := r.client.List(ctx, &jobs, at...); err != nil {
		return nil, fmt.Errorf("listing scaled jobs that use %s %s: %w", r.kind.name, key, err)
	}
	for i := range jobs.Items {
		if jobs.Items[i].DeletionTimestamp == nil {
			s.jobs = append(s.jobs, jobs.Items[i].Name)
		}
	}
	return s, nil
}

// act writes the finalizer and the status, and tells what happened.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) error {
	before := s.object.DeepCopyObject().(client.Object)
	lock := client.MergeFromWithOptimisticLock{}
	switch {
	case p.finalize && p.gone:
		controllerutil.RemoveFinalizer(s.object, finalizer)
	case p.finalize:
		controllerutil.AddFinalizer(s.object, finalizer)
	}
	if p.finalize {
		if err := r.client.Patch(ctx, s.object, client.MergeFromWithOptions(before, lock)); err != nil {
			return fmt.Errorf("writing the finalizer of %s %s: %w", r.kind.name, client.ObjectKeyFromObject(before), err)
		}
	}
	r.remember(before.GetUID(), before.GetGeneration(), p.gone)
	if p.happened != nil {
		r.emitter.Emit(before, p.happened.kind, p.happened.cloud, p.happened.reason, p.happened.message)
	}
	if p.status == nil {
		return nil
	}
	before = s.object.DeepCopyObject().(client.Object)
	*r.kind.status(s.object) = *p.status
	if err := r.client.Status().Patch(ctx, s.object, client.MergeFromWithOptions(before, lock)); err != nil {
		return fmt.Errorf("updating status of %s %s: %w", r.kind.name, client.ObjectKeyFromObject(before), err)
	}
	return nil
}

// remember notes which generation was told of.
func (r *Reconciler) remember(uid types.UID, generation int64, gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if gone {
		delete(r.seen, uid)
		return
	}
	r.seen[uid] = generation
}

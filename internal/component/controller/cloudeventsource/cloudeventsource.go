// Package cloudeventsource reconciles CloudEventSources and ClusterCloudEventSources, and offers them
// what happens to KEDA's objects.
package cloudeventsource

import (
	"context"
	"fmt"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/controller/cloudeventsource/delivery"
)

// finalizer is upstream's. It is not set here, as nothing has to be cleaned up, but taken away from
// objects that come from there.
const finalizer = "finalizer.keda.sh"

// soon is when a reconcile comes again that the cache was behind for.
const soon = 200 * time.Millisecond

// A Reconciler keeps the sources of one kind.
type Reconciler struct {
	client  client.Client
	sources *Sources
	object  func() source
}

// source is what both kinds are.
type source = kedaeventingv1alpha1.CloudEventSourceInterface

// Setup adds the controllers of both kinds to the manager.
func (s *Sources) Setup(_ context.Context, c controller.Config) error {
	s.use(c.Manager.GetScheme())
	for _, k := range []struct {
		name   string
		object func() source
		news   *controller.Trigger
	}{
		{"cloudeventsource", func() source { return &kedaeventingv1alpha1.CloudEventSource{} }, &s.local},
		{"clustercloudeventsource", func() source { return &kedaeventingv1alpha1.ClusterCloudEventSource{} }, &s.cluster},
	} {
		r := &Reconciler{client: c.Manager.GetClient(), sources: s, object: k.object}
		err := ctrl.NewControllerManagedBy(c.Manager).
			Named(k.name).
			WithEventFilter(c.Watched()).
			For(k.object(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
			WatchesRawSource(k.news).
			Complete(r)
		if err != nil {
			return fmt.Errorf("adding the %s controller: %w", k.name, err)
		}
	}
	return nil
}

// state is what matters of one source.
type state struct {
	object source
	// problem says why nothing can be sent, if so.
	problem error
	// active says that the sink takes events, or was not tried.
	active bool
}

// Reconcile brings one source's lane and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	err = r.act(ctx, s.object, decide(*s))
	if apierrors.IsConflict(err) { // the change that the cache lacks may bring no reconcile
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return ctrl.Result{}, controller.Settled(err)
}

// observe gathers the source and how its lane fares, once that is as the source says; nil when it is
// gone.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	object := r.object()
	err := r.client.Get(ctx, key, object)
	if apierrors.IsNotFound(err) {
		r.sources.remove(key)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	if object.GetDeletionTimestamp() != nil {
		r.sources.remove(key)
		return &state{object: object}, nil
	}
	problem := r.sources.set(key, object)
	return &state{object: object, problem: problem, active: r.sources.active(key)}, nil
}

// plan is what is to be written.
type plan struct {
	release    bool // take the finalizer away
	conditions kedav1alpha1.Conditions
}

// decide works out the condition; its reasons and messages are upstream's.
func decide(s state) plan {
	if s.object.GetDeletionTimestamp() != nil {
		return plan{release: controllerutil.ContainsFinalizer(s.object, finalizer)}
	}
	conditions := s.object.GetStatus().Conditions.DeepCopy()
	if len(conditions) == 0 {
		conditions = *kedaeventingv1alpha1.GetCloudEventSourceInitializedConditions()
	}
	switch {
	case s.problem != nil:
		conditions.SetActiveCondition(metav1.ConditionFalse, kedaeventingv1alpha1.CloudEventSourceConditionFailedReason,
			kedaeventingv1alpha1.CloudEventSourceConditionFailedMessage+": "+s.problem.Error())
	case s.active:
		conditions.SetActiveCondition(metav1.ConditionTrue, kedaeventingv1alpha1.CloudEventSourceConditionActiveReason,
			kedaeventingv1alpha1.CloudEventSourceConditionActiveMessage)
	default:
		conditions.SetActiveCondition(metav1.ConditionFalse, kedaeventingv1alpha1.CloudEventSourceConditionFailedReason,
			kedaeventingv1alpha1.CloudEventSourceConditionFailedMessage)
	}
	return plan{conditions: conditions}
}

// act writes what differs.
func (r *Reconciler) act(ctx context.Context, object source, p plan) error {
	before, _ := object.DeepCopyObject().(client.Object) // its own kind
	with := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	switch {
	case p.release:
		controllerutil.RemoveFinalizer(object, finalizer)
		if err := r.client.Patch(ctx, object, with); err != nil {
			return fmt.Errorf("writing the finalizer of %s: %w", client.ObjectKeyFromObject(object), err)
		}
	case p.conditions != nil && !equality.Semantic.DeepEqual(p.conditions, object.GetStatus().Conditions):
		object.GetStatus().Conditions = p.conditions
		if err := r.client.Status().Patch(ctx, object, with); err != nil {
			return fmt.Errorf("updating status of %s: %w", client.ObjectKeyFromObject(object), err)
		}
	}
	return nil
}

// keyOf is a source among the lanes.
func keyOf(key types.NamespacedName) delivery.Key {
	return delivery.Key{Namespace: key.Namespace, Name: key.Name}
}

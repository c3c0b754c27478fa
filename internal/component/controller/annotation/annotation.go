// Package annotation keeps the ScaledObjects that Knative Services ask for by the annotation
// ebb.dev/triggers: of a Service's name, and gone with it or with the annotation.
package annotation

import (
	"context"
	"fmt"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render/scaled"
)

// reasonFailed is of the event that says why a Service's triggers do not scale it.
const reasonFailed = "TriggersFailed"

// A Reconciler keeps the ScaledObjects.
type Reconciler struct {
	client client.Client
	events events.EventRecorder
}

// Setup adds the controller to the manager.
func Setup(_ context.Context, c controller.Config) error {
	r := &Reconciler{client: c.Manager.GetClient(), events: c.Manager.GetEventRecorder("service-controller")}
	changed := predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("service-triggers").
		For(&servingv1.Service{}, builder.WithPredicates(predicate.AnnotationChangedPredicate{})).
		Watches(&kedav1alpha1.ScaledObject{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(changed)). // also one that is in the way
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the controller of Services' triggers: %w", err)
	}
	return nil
}

// state is what is known of a Service.
type state struct {
	service *servingv1.Service
	scaled  *kedav1alpha1.ScaledObject // of its name; nil if there is none
}

// plan is what is to be done about its ScaledObject.
type plan struct {
	create, update, remove *kedav1alpha1.ScaledObject
	problem                string // why its triggers do not scale it
}

// Reconcile brings one Service's ScaledObject up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, controller.Settled(r.act(ctx, s, decide(s)))
}

// observe gathers the Service and the ScaledObject of its name; nil when there is nothing to keep.
func (r *Reconciler) observe(ctx context.Context, req ctrl.Request) (*state, error) {
	s := &state{service: &servingv1.Service{}, scaled: &kedav1alpha1.ScaledObject{}}
	if err := r.client.Get(ctx, req.NamespacedName, s.service); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.service.DeletionTimestamp != nil {
		return nil, nil // what it owns goes with it
	}
	err := r.client.Get(ctx, req.NamespacedName, s.scaled)
	if apierrors.IsNotFound(err) {
		s.scaled, err = nil, nil
	}
	return s, err
}

// decide compares what there is with what the annotation asks for. What somebody else made is his.
func decide(s *state) (p plan) {
	want, err := scaled.Object(s.service)
	ours := s.scaled != nil && metav1.IsControlledBy(s.scaled, s.service)
	switch {
	case err != nil:
		p.problem = fmt.Sprintf("annotation %s: %v", scaled.Annotation, err)
	case want == nil && ours:
		p.remove = s.scaled
	case want == nil:
	case s.scaled == nil:
		p.create = want
	case !ours:
		p.problem = fmt.Sprintf("annotation %s has no effect: there is a ScaledObject %s already, which is not the Service's", scaled.Annotation, want.Name)
	case s.scaled.DeletionTimestamp != nil: // it comes again once it is gone
	default:
		next := s.scaled.DeepCopy()
		next.Spec = want.Spec
		if !equality.Semantic.DeepEqual(next.Spec, s.scaled.Spec) {
			p.update = next
		}
	}
	return p
}

// act writes the plan, and tells what is in its way.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) error {
	var err error
	switch {
	case p.create != nil:
		err = r.client.Create(ctx, p.create)
		if apierrors.IsAlreadyExists(err) {
			return nil // its event brings it
		}
	case p.update != nil:
		err = r.client.Update(ctx, p.update)
	case p.remove != nil:
		err = r.client.Delete(ctx, p.remove)
	}
	if controller.Settled(err) != nil {
		p.problem = err.Error()
	}
	if p.problem != "" {
		r.events.Eventf(s.service, nil, corev1.EventTypeWarning, reasonFailed, "ScaleByTriggers", "%s", p.problem)
	}
	if err != nil {
		return fmt.Errorf("writing the scaled object of service %s/%s: %w", s.service.Namespace, s.service.Name, err)
	}
	return nil
}

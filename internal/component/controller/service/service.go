// Package service reconciles Knative Services: each owns one Configuration and one Route of its
// name, and its conditions are theirs.
package service

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// A Reconciler keeps Services' children and status.
type Reconciler struct {
	client   client.Client
	events   events.EventRecorder
	settings *settings.Store
}

// Setup adds the controller to the manager.
func Setup(_ context.Context, c controller.Config) error {
	r := &Reconciler{
		client:   c.Manager.GetClient(),
		events:   c.Manager.GetEventRecorder("service-controller"),
		settings: c.Settings,
	}
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("service").
		For(&servingv1.Service{}).
		Owns(&servingv1.Configuration{}).
		Owns(&servingv1.Route{}).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: 8}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the service controller: %w", err)
	}
	return nil
}

// Reconcile brings one Service's Configuration, Route and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	p := decide(r.settings.Current().ToContext(ctx), *s)
	return ctrl.Result{}, controller.Settled(r.act(ctx, s.service, p))
}

// observe gathers the Service and its children; nil when there is nothing to keep.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{service: &servingv1.Service{}}
	if err := r.client.Get(ctx, key, s.service); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.service.DeletionTimestamp != nil {
		return nil, nil
	}
	cfg, route, named := &servingv1.Configuration{}, &servingv1.Route{}, &servingv1.Revision{}
	if found, err := r.find(ctx, key, cfg); err != nil {
		return nil, err
	} else if found {
		s.configuration = cfg
	}
	if found, err := r.find(ctx, key, route); err != nil {
		return nil, err
	} else if found {
		s.route = route
	}
	if name := s.service.Spec.Template.Name; name != "" {
		if found, err := r.find(ctx, types.NamespacedName{Namespace: key.Namespace, Name: name}, named); err != nil {
			return nil, err
		} else if found {
			s.named = named
		}
	}
	return s, nil
}

func (r *Reconciler) find(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.client.Get(ctx, key, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// act writes the plan: children first, then the status. A status that could only say that children
// are on their way is left for the reconcile their events bring.
func (r *Reconciler) act(ctx context.Context, svc *servingv1.Service, p plan) error {
	if p.createConfiguration != nil {
		if err := r.create(ctx, svc, p.createConfiguration, "Configuration"); err != nil {
			return err
		}
	}
	if p.createRoute != nil {
		if err := r.create(ctx, svc, p.createRoute, "Route"); err != nil {
			return err
		}
	}
	if p.updateConfiguration != nil {
		if err := r.client.Update(ctx, p.updateConfiguration); err != nil {
			return fmt.Errorf("updating configuration %s/%s: %w", svc.Namespace, svc.Name, err)
		}
	}
	if p.updateRoute != nil {
		if err := r.client.Update(ctx, p.updateRoute); err != nil {
			return fmt.Errorf("updating route %s/%s: %w", svc.Namespace, svc.Name, err)
		}
	}
	if p.writes() || equality.Semantic.DeepEqual(svc.Status, p.after.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, p.after); err != nil {
		return fmt.Errorf("updating status of service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	return nil
}

func (r *Reconciler) create(ctx context.Context, svc *servingv1.Service, child client.Object, kind string) error {
	err := r.client.Create(ctx, child)
	switch {
	case err == nil:
		r.events.Eventf(svc, child, corev1.EventTypeNormal, "Created", "Create", "Created %s %q", kind, child.GetName())
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil // the cache is behind; its event comes
	}
	r.events.Eventf(svc, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create %s %q: %v", kind, child.GetName(), err)
	return fmt.Errorf("creating %s %s/%s: %w", kind, svc.Namespace, svc.Name, err)
}

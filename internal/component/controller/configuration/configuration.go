// Package configuration reconciles Configurations: every change of the template becomes a Revision,
// and the newest one that is ready is named.
package configuration

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
)

// A Reconciler keeps Configurations' revisions and status.
type Reconciler struct {
	client client.Client
	live   client.Reader // past the cache, for a name that is already taken
	events events.EventRecorder
}

// Setup adds the controller to the manager.
func Setup(_ context.Context, c controller.Config) error {
	r := &Reconciler{
		client: c.Manager.GetClient(),
		live:   c.Manager.GetAPIReader(),
		events: c.Manager.GetEventRecorder("configuration-controller"),
	}
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("configuration").
		For(&servingv1.Configuration{}).
		Owns(&servingv1.Revision{}).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: 8}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the configuration controller: %w", err)
	}
	return nil
}

// Reconcile brings one Configuration's latest Revision and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	p := decide(*s, time.Now())
	if p.create != nil {
		taken, err := r.create(ctx, s, p.create)
		if err != nil {
			return ctrl.Result{}, r.fail(ctx, s.configuration, err)
		}
		if taken == nil {
			return ctrl.Result{}, nil // its event brings the status
		}
		s.named = taken
		p = decide(*s, time.Now())
	}
	return ctrl.Result{}, controller.Settled(r.act(ctx, s.configuration, p))
}

func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{configuration: &servingv1.Configuration{}}
	if err := r.client.Get(ctx, key, s.configuration); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.configuration.DeletionTimestamp != nil {
		return nil, nil
	}
	var list servingv1.RevisionList
	if err := r.client.List(ctx, &list, client.InNamespace(key.Namespace),
		client.MatchingLabels{serving.ConfigurationLabelKey: key.Name}); err != nil {
		return nil, fmt.Errorf("listing revisions of configuration %s: %w", key, err)
	}
	for i := range list.Items {
		s.revisions = append(s.revisions, &list.Items[i])
	}
	named := &servingv1.Revision{}
	wanted := types.NamespacedName{Namespace: key.Namespace, Name: render.RevisionName(s.configuration)}
	switch err := r.client.Get(ctx, wanted, named); {
	case err == nil:
		s.named = named
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("getting revision %s: %w", wanted, err)
	}
	return s, nil
}

// create makes the revision. It returns the one that already has the name if the cache did not
// know of it.
func (r *Reconciler) create(ctx context.Context, s *state, rev *servingv1.Revision) (*servingv1.Revision, error) {
	err := r.client.Create(ctx, rev)
	if err == nil {
		r.events.Eventf(s.configuration, rev, corev1.EventTypeNormal, "Created", "Create", "Created Revision %q", rev.Name)
		return nil, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("creating revision %s/%s: %w", rev.Namespace, rev.Name, err)
	}
	taken := &servingv1.Revision{}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(rev), taken); err != nil {
		return nil, fmt.Errorf("getting revision %s/%s: %w", rev.Namespace, rev.Name, err)
	}
	s.revisions = append(s.revisions, taken)
	return taken, nil
}

// fail tells in the status why no revision could be made, and has it tried again.
func (r *Reconciler) fail(ctx context.Context, cfg *servingv1.Configuration, cause error) error {
	p := begin(cfg)
	p.status.MarkRevisionCreationFailed(cause.Error())
	controller.Finish(p.after, cfg)
	p.event("Warning", "CreationFailed", "Failed to create Revision: "+cause.Error())
	if err := controller.Settled(r.act(ctx, cfg, p)); err != nil {
		return err
	}
	return cause
}

func (r *Reconciler) act(ctx context.Context, cfg *servingv1.Configuration, p plan) error {
	if equality.Semantic.DeepEqual(cfg.Status, p.after.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, p.after); err != nil {
		return fmt.Errorf("updating status of configuration %s/%s: %w", cfg.Namespace, cfg.Name, err)
	}
	for _, e := range p.events {
		r.events.Eventf(cfg, nil, e.kind, e.reason, "Reconcile", "%s", e.message)
	}
	return nil
}

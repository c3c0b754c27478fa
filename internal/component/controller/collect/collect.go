// Package collect deletes the Revisions nobody needs any more, by the rules of config-gc.
//
// It looks when a Configuration's Revisions or the settings change, and once more when the next
// Revision will have become too old.
package collect

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/gc"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// A Reconciler removes a Configuration's old Revisions.
type Reconciler struct {
	client   client.Client
	settings *settings.Store
	log      *slog.Logger

	mu   sync.Mutex // guards last
	last gc.Config  // the settings when they were last looked at
}

// soon is when Revisions are looked at again that changed while they were to go.
const soon = time.Second

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{client: c.Manager.GetClient(), settings: c.Settings, log: c.Log, last: *c.Settings.Current().GC}
	c.Settings.Subscribe(func() {
		if r.changed() {
			r.everyone(ctx, trigger.Fire)
		}
	})
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("collect").
		For(&servingv1.Configuration{}, builder.WithPredicates(otherLatest())).
		Owns(&servingv1.Revision{}, builder.WithPredicates(predicate.Or(predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		WatchesRawSource(trigger).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the collect controller: %w", err)
	}
	return nil
}

// otherLatest lets changes of a Configuration pass that make another Revision the latest ready one.
func otherLatest() predicate.Predicate {
	latest := func(o client.Object) string {
		if cfg, ok := o.(*servingv1.Configuration); ok {
			return cfg.Status.LatestReadyRevisionName
		}
		return ""
	}
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return latest(e.ObjectOld) != latest(e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false }, // its Revisions go with it
	}
}

// changed tells whether config-gc says something else than when it was last asked.
func (r *Reconciler) changed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := *r.settings.Current().GC
	was := r.last
	r.last = now
	return now != was
}

// everyone asks for a look at all Configurations.
func (r *Reconciler) everyone(ctx context.Context, fire func(types.NamespacedName)) {
	var list servingv1.ConfigurationList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing configurations after a change of settings", "error", err)
		return
	}
	for i := range list.Items {
		fire(client.ObjectKeyFromObject(&list.Items[i]))
	}
}

// Reconcile removes what one Configuration has too much, and comes back when more will be.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	p := decide(*s)
	behind, err := r.act(ctx, p)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case behind:
		return ctrl.Result{RequeueAfter: soon}, nil
	case p.due.IsZero():
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: max(time.Millisecond, p.due.Sub(s.now))}, nil
}

// observe gathers the Configuration and its Revisions; nil when it is gone or going. What it returns
// is the cache's own and read only.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{configuration: &servingv1.Configuration{}, settings: r.settings.Current().GC, now: time.Now()}
	if err := r.client.Get(ctx, key, s.configuration); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.configuration.DeletionTimestamp != nil {
		return nil, nil
	}
	var list servingv1.RevisionList
	if err := r.client.List(ctx, &list, client.InNamespace(key.Namespace),
		client.MatchingLabels{serving.ConfigurationLabelKey: key.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing revisions of configuration %s: %w", key, err)
	}
	for i := range list.Items {
		s.revisions = append(s.revisions, &list.Items[i])
	}
	return s, nil
}

// act deletes, provided that nothing happened to the Revision since it was read: traffic may have
// come back to it. behind says that something did.
func (r *Reconciler) act(ctx context.Context, p plan) (behind bool, err error) {
	for _, rev := range p.remove {
		err := r.client.Delete(ctx, rev, client.Preconditions{UID: &rev.UID, ResourceVersion: &rev.ResourceVersion})
		switch {
		case err == nil:
			r.log.Info("deleted a revision that had no traffic", "namespace", rev.Namespace, "revision", rev.Name)
		case apierrors.IsConflict(err):
			behind = true
		case !apierrors.IsNotFound(err):
			return false, fmt.Errorf("deleting revision %s/%s: %w", rev.Namespace, rev.Name, err)
		}
	}
	return behind, nil
}

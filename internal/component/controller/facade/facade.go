// Package facade publishes the objects that Knative's own request path is made of, for tools and
// people that look at them: ServerlessServices with their Services and endpoints, Metrics, Images, and
// the Service that stands for the activator.
//
// Nothing of ebb reads them. So they are written last, a few at a time, while nobody waits for an
// instance to start and no Revision is on its way to ready, and only where something changed.
//
//	Revision, PodAutoscaler ─► ServerlessService ─┬─► Service <rev>          (the gateway's alias)
//	                      ├──► Metric             ├─► EndpointSlice <rev>    (gateway or pods, by mode)
//	                      └──► Images             └─► Service <rev>-private  (selects the pods)
package facade

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// How long publishing waits: for starts to end, after the last Revision was seen on its way, and at
// most for one that does not become ready or because of others.
const (
	busyWait = 500 * time.Millisecond
	lull     = time.Second
	patience = 3 * time.Second
	longest  = 20 * time.Second
)

// A Reconciler publishes Revisions.
type Reconciler struct {
	client    client.Client // reads Serving's objects from the cache all controllers share
	shown     client.Reader // what was published, from a cache of its own
	settings  *settings.Store
	scaler    controller.Scaler
	activator netip.Addr
	gateway   string
	busy      func() bool
	log       *slog.Logger
	lastStart atomic.Int64 // when a Revision was last seen on its way, in Unix nanoseconds
}

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	shown, err := newCache(c.Manager)
	if err != nil {
		return err
	}
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client: c.Manager.GetClient(), shown: shown, settings: c.Settings, scaler: c.Scaler,
		activator: c.Activator, gateway: c.Gateway, busy: c.Busy, log: c.Log,
	}
	if r.busy == nil {
		r.busy = func() bool { return false }
	}
	c.Scaler.Subscribe(trigger.Fire)
	c.Settings.Subscribe(func() { r.everyone(ctx, trigger.Fire) })
	b := ctrl.NewControllerManagedBy(c.Manager).
		Named("facade").
		For(&servingv1.Revision{}).
		Watches(&autoscalingv1alpha1.PodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(ofRevision)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(ofRevision)).
		WatchesRawSource(trigger).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: 2})
	for _, o := range published() {
		b = b.WatchesRawSource(source.Kind(shown, o, handler.EnqueueRequestsFromMapFunc(ofRevision)))
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("adding the facade controller: %w", err)
	}
	if err := c.Manager.Add(shown); err != nil {
		return fmt.Errorf("adding the cache of what is published: %w", err)
	}
	return c.Manager.Add(activator{c.Manager.GetClient(), c.Manager.GetAPIReader(), c.Activator})
}

// ofRevision maps what carries a Revision's label to it.
func ofRevision(_ context.Context, o client.Object) []ctrl.Request {
	name := o.GetLabels()[serving.RevisionLabelKey]
	if name == "" {
		return nil
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// everyone asks for a reconcile of all Revisions, as the settings changed.
func (r *Reconciler) everyone(ctx context.Context, fire func(types.NamespacedName)) {
	var list servingv1.RevisionList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing revisions after a change of settings", "error", err)
		return
	}
	for i := range list.Items {
		fire(client.ObjectKeyFromObject(&list.Items[i]))
	}
}

// Reconcile publishes one Revision when its time has come. What is owned by a Revision that is gone
// goes by itself.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	rev := &servingv1.Revision{}
	if err := r.client.Get(ctx, req.NamespacedName, rev); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if rev.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	if wait := r.wait(rev, time.Now()); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	s, err := r.observe(ctx, rev)
	if err != nil || s == nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, settled(r.act(ctx, decide(*s)))
}

// wait tells how long to leave the field to what people wait for.
func (r *Reconciler) wait(rev *servingv1.Revision, now time.Time) time.Duration {
	if r.busy() {
		return busyWait
	}
	age := now.Sub(rev.CreationTimestamp.Time)
	if rev.Status.GetCondition(servingv1.RevisionConditionReady).IsUnknown() && age < patience {
		r.lastStart.Store(now.UnixNano())
		return patience - age
	}
	if quiet := now.Sub(time.Unix(0, r.lastStart.Load())); quiet < lull && age < longest {
		return lull
	}
	return 0
}

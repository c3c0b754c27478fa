// Package revision reconciles Revisions: images are pinned by digest, a Deployment runs them, and
// the status tells what came of it.
//
// The number of replicas belongs to the autoscaler once the Deployment exists. Readiness is taken
// from the fleet, which knows before the Deployment's status does.
package revision

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// A Reconciler keeps Revisions' children and status.
type Reconciler struct {
	client   client.Client
	events   events.EventRecorder
	settings *settings.Store
	fleet    controller.Fleet
	scaler   controller.Scaler
	resolver *resolver
	busy     func() bool
	log      *slog.Logger
}

// later is when a Revision is looked at again whose news could wait.
const later = 500 * time.Millisecond

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client:   c.Manager.GetClient(),
		events:   c.Manager.GetEventRecorder("revision-controller"),
		settings: c.Settings,
		fleet:    c.Fleet,
		scaler:   c.Scaler,
		resolver: newResolver(c, trigger.Fire),
		busy:     c.Busy,
		log:      c.Log,
	}
	if r.busy == nil {
		r.busy = func() bool { return false }
	}
	c.Fleet.Subscribe(trigger.Fire)
	c.Scaler.Subscribe(trigger.Fire)
	c.Settings.Subscribe(func() { r.everyone(ctx, trigger.Fire) })
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("revision").
		For(&servingv1.Revision{}).
		Owns(&appsv1.Deployment{}).
		Owns(&autoscalingv1alpha1.PodAutoscaler{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(ofRevision)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(ofRevision)).
		WatchesRawSource(trigger).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: 8}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the revision controller: %w", err)
	}
	return nil
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

// Reconcile brings one Revision's children and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if s == nil {
		r.resolver.Forget(req.NamespacedName)
		r.scaler.RemoveRevision(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if s.revision.IsReady() && r.busy() {
		return ctrl.Result{RequeueAfter: later}, nil // only the scale can have changed
	}
	p, err := decide(*s)
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, controller.Settled(r.act(ctx, s, p))
}

// observe gathers the Revision and what it stands on; nil when it is gone or going.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{revision: &servingv1.Revision{}, settings: r.settings.Current(), ready: r.fleet.Ready(key)}
	if err := r.client.Get(ctx, key, s.revision); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.revision.DeletionTimestamp != nil {
		return nil, nil
	}
	var err error
	if s.spec, err = controller.ScaleSpec(s.revision, s.settings); err != nil {
		return nil, fmt.Errorf("reading how revision %s is scaled: %w", key, err)
	}
	if scaled, ok := r.scaler.State(key); ok {
		s.scaled = &scaled
	}
	if resolved(s.revision) {
		r.resolver.Forget(key)
	} else {
		s.digests = r.resolver.Resolve(ctx, s.revision)
	}
	if err := r.children(ctx, key, s); err != nil {
		return nil, err
	}
	if s.deployment != nil && s.ready == 0 {
		s.pods, err = r.pods(ctx, key)
	}
	return s, err
}

// children gathers what was made for the Revision.
func (r *Reconciler) children(ctx context.Context, key types.NamespacedName, s *state) error {
	d, pa, hpa := &appsv1.Deployment{}, &autoscalingv1alpha1.PodAutoscaler{}, &autoscalingv2.HorizontalPodAutoscaler{}
	if found, err := r.find(ctx, key.Namespace, render.DeploymentName(key.Name), d); err != nil {
		return err
	} else if found {
		s.deployment = d
	}
	if found, err := r.find(ctx, key.Namespace, key.Name, pa); err != nil {
		return err
	} else if found {
		s.autoscaler = pa
	}
	if found, err := r.find(ctx, key.Namespace, key.Name, hpa); err != nil {
		return err
	} else if found {
		s.horizontal = hpa
	}
	return nil
}

func (r *Reconciler) pods(ctx context.Context, key types.NamespacedName) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := r.client.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingLabels{serving.RevisionLabelKey: key.Name})
	if err != nil {
		return nil, fmt.Errorf("listing pods of revision %s: %w", key, err)
	}
	return list.Items, nil
}

func (r *Reconciler) find(ctx context.Context, namespace, name string, into client.Object) (bool, error) {
	err := r.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// act writes the plan: what makes pods first, then the Revision's status, which others wait for, and
// the PodAutoscaler, which only tools read, last.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) error {
	rev := s.revision
	if err := r.write(ctx, p.createDeployment, p.updateDeployment); err != nil {
		return fmt.Errorf("writing the deployment of revision %s/%s: %w", rev.Namespace, rev.Name, err)
	}
	if p.spec != nil {
		r.scaler.SetRevision(client.ObjectKeyFromObject(rev), *p.spec)
	}
	if err := r.putStatus(ctx, rev, p.after); err != nil {
		return err
	}
	if err := r.putHorizontal(ctx, p); err != nil {
		return err
	}
	return r.putAutoscaler(ctx, s, p)
}

func (r *Reconciler) write(ctx context.Context, create, update *appsv1.Deployment) error {
	switch {
	case create != nil:
		if err := r.client.Create(ctx, create); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	case update != nil:
		return r.client.Update(ctx, update)
	}
	return nil
}

func (r *Reconciler) putStatus(ctx context.Context, before, after *servingv1.Revision) error {
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, after); err != nil {
		return fmt.Errorf("updating status of revision %s/%s: %w", after.Namespace, after.Name, err)
	}
	if !before.IsReady() && after.IsReady() {
		r.events.Eventf(after, nil, corev1.EventTypeNormal, "RevisionReady", "Reconcile",
			"Revision becomes ready upon all resources being ready")
	}
	return nil
}

func (r *Reconciler) putAutoscaler(ctx context.Context, s *state, p plan) error {
	rev, pa := s.revision, s.autoscaler
	switch {
	case p.createAutoscaler != nil:
		// Its status is left for the reconcile its event brings: the scaler will have decided by then.
		if err := r.client.Create(ctx, p.createAutoscaler); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating pod autoscaler %s/%s: %w", rev.Namespace, rev.Name, err)
		}
		return nil
	case p.updateAutoscaler != nil:
		pa = p.updateAutoscaler
		if err := r.client.Update(ctx, pa); err != nil {
			return fmt.Errorf("updating pod autoscaler %s/%s: %w", pa.Namespace, pa.Name, err)
		}
	}
	if p.autoscalerStatus == nil {
		return nil
	}
	pa = pa.DeepCopy()
	pa.Status = *p.autoscalerStatus
	pa.Status.ObservedGeneration = pa.Generation
	if err := r.client.Status().Update(ctx, pa); err != nil {
		return fmt.Errorf("updating status of pod autoscaler %s/%s: %w", pa.Namespace, pa.Name, err)
	}
	return nil
}

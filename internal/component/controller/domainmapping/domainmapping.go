// Package domainmapping reconciles DomainMappings: a domain is claimed for its namespace, the
// reference is resolved to a name in the cluster, and the gateway's table answers for the domain as
// it does for that name, before the status says so.
package domainmapping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// finalizer keeps a DomainMapping until its claim is released; the name is upstream's.
const finalizer = "domainmappings.serving.knative.dev"

// A Reconciler keeps DomainMappings' claims, table entries and status.
type Reconciler struct {
	client     client.Client
	live       client.Reader // past the cache, for the claim that is to be released
	events     events.EventRecorder
	settings   *settings.Store
	references *references
	book       *controller.Chapter
	ports      ports
	ingresses  controller.Ingresses
	log        *slog.Logger
}

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client:   c.Manager.GetClient(),
		live:     c.Manager.GetAPIReader(),
		events:   c.Manager.GetEventRecorder("domainmapping-controller"),
		settings: c.Settings,
		book:     c.Book.Chapter(trigger.Fire),
		ports:    ports{plain: c.PublicPort, tls: c.PublicTLSPort},
		log:      c.Log,
	}
	r.ingresses = controller.Ingresses{Client: r.client, Events: r.events, Inside: c.Gateway, Outside: c.PublicGateway}
	c.Settings.Subscribe(func() { r.everyone(ctx, trigger.Fire) })
	running, err := ctrl.NewControllerManagedBy(c.Manager).
		Named("domainmapping").
		For(&servingv1beta1.DomainMapping{}).
		Owns(&netv1alpha1.Ingress{}).
		Owns(&netv1alpha1.Certificate{}).
		Watches(&netv1alpha1.ClusterDomainClaim{}, handler.EnqueueRequestsFromMapFunc(r.named)).
		Watches(&servingv1.Service{}, handler.EnqueueRequestsFromMapFunc(r.referring), builder.WithPredicates(readdressed)).
		Watches(&servingv1.Route{}, handler.EnqueueRequestsFromMapFunc(r.referring), builder.WithPredicates(readdressed)).
		WatchesRawSource(trigger).
		Build(r)
	if err != nil {
		return fmt.Errorf("adding the domainmapping controller: %w", err)
	}
	if r.references, err = newReferences(c.Manager, running, handler.EnqueueRequestsFromMapFunc(r.referring)); err != nil {
		return err
	}
	return c.Manager.Add(restorer{r})
}

// everyone asks for a reconcile of all DomainMappings, as the settings changed.
func (r *Reconciler) everyone(ctx context.Context, fire func(types.NamespacedName)) {
	var list servingv1beta1.DomainMappingList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing domain mappings after a change of settings", "error", err)
		return
	}
	for i := range list.Items {
		fire(client.ObjectKeyFromObject(&list.Items[i]))
	}
}

// Reconcile brings one DomainMapping's claim, table entry and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case s == nil:
		r.book.Drop(req.NamespacedName)
		return ctrl.Result{}, nil
	case s.mapping.DeletionTimestamp != nil:
		r.book.Drop(req.NamespacedName)
		return ctrl.Result{}, controller.Settled(r.release(ctx, s))
	}
	p := s.decide(r.ports)
	return ctrl.Result{RequeueAfter: s.target.again}, controller.Settled(r.act(ctx, s, p))
}

// release gives the claim up if it was made for this namespace, and lets the DomainMapping go.
func (r *Reconciler) release(ctx context.Context, s *state) error {
	if !controllerutil.ContainsFinalizer(s.mapping, finalizer) {
		return nil
	}
	if s.settings.Network.AutocreateClusterDomainClaims {
		var claim netv1alpha1.ClusterDomainClaim
		err := r.live.Get(ctx, types.NamespacedName{Name: s.mapping.Name}, &claim)
		if err == nil && claim.Spec.Namespace == s.mapping.Namespace {
			err = r.client.Delete(ctx, &claim, client.Preconditions{UID: &claim.UID})
		}
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("releasing the claim of %s: %w", s.mapping.Name, err)
		}
	}
	next := s.mapping.DeepCopy()
	controllerutil.RemoveFinalizer(next, finalizer)
	return r.patch(ctx, next, s.mapping)
}

func (r *Reconciler) patch(ctx context.Context, next, before *servingv1beta1.DomainMapping) error {
	with := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, next, with); err != nil {
		return fmt.Errorf("writing the finalizer of domain mapping %s/%s: %w", next.Namespace, next.Name, err)
	}
	return nil
}

// act claims the domain, publishes, and writes the Ingress and the status.
func (r *Reconciler) act(ctx context.Context, s *state, p plan) error {
	if first, err := r.claim(ctx, s, &p); err != nil || !first {
		return err
	}
	if err := r.writeCertificate(ctx, p); err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(s.mapping)
	var served error
	switch {
	case p.drop:
		r.book.Drop(key)
	case p.entry != nil:
		if served = r.book.Put(ctx, key, *p.entry); errors.Is(served, context.Canceled) {
			return served
		}
	}
	if p.ingress != nil {
		now, err := r.ingresses.Write(ctx, s.mapping, s.ingress, p.ingress, served)
		if err != nil {
			return err
		}
		if now != nil && served != nil {
			p.status.PropagateIngressStatus(now.Status)
		}
		controller.Finish(p.after, s.mapping)
	}
	if equality.Semantic.DeepEqual(s.mapping.Status, p.after.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, p.after); err != nil {
		return fmt.Errorf("updating status of domain mapping %s: %w", key, err)
	}
	return nil
}

// claim has the finalizer written and then the claim; false when another was first, whose claim's
// event decides.
func (r *Reconciler) claim(ctx context.Context, s *state, p *plan) (bool, error) {
	if !controllerutil.ContainsFinalizer(s.mapping, finalizer) {
		next := s.mapping.DeepCopy()
		controllerutil.AddFinalizer(next, finalizer)
		if err := r.patch(ctx, next, s.mapping); err != nil {
			return false, err
		}
		p.after.ObjectMeta = next.ObjectMeta
	}
	if p.claim == nil {
		return true, nil
	}
	err := r.client.Create(ctx, p.claim)
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claiming domain %s: %w", p.claim.Name, err)
	}
	return true, nil
}

// Package route reconciles Routes: traffic is assigned to Revisions that are ready, hosts are named,
// and the gateway's table carries it all before the status says so.
package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// A Reconciler keeps the route table and Routes' children and status.
type Reconciler struct {
	client    client.Client
	live      client.Reader // past the cache, for a Service name that is already taken
	events    events.EventRecorder
	settings  *settings.Store
	book      *controller.Chapter
	ingresses controller.Ingresses
	naming    naming // without settings
	gateway   string // as pods reach it
	log       *slog.Logger
}

// Setup adds the controller to the manager.
func Setup(ctx context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{
		client:   c.Manager.GetClient(),
		live:     c.Manager.GetAPIReader(),
		events:   c.Manager.GetEventRecorder("route-controller"),
		settings: c.Settings,
		book:     c.Book.Chapter(trigger.Fire),
		naming:   naming{publicPort: c.PublicPort, tlsPort: c.PublicTLSPort, aliases: c.HostAliases},
		gateway:  c.Gateway,
		log:      c.Log,
	}
	r.ingresses = controller.Ingresses{Client: r.client, Events: r.events, Inside: c.Gateway, Outside: c.PublicGateway}
	c.Settings.Subscribe(func() { r.everyone(ctx, trigger.Fire) })
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("route").
		For(&servingv1.Route{}).
		Owns(&corev1.Service{}).
		Owns(&netv1alpha1.Ingress{}).
		Owns(&netv1alpha1.Certificate{}).
		Watches(&netv1alpha1.Certificate{}, handler.EnqueueRequestsFromMapFunc(r.underWildcard)).
		Watches(&servingv1.Configuration{}, handler.EnqueueRequestsFromMapFunc(r.leadingTo)).
		Watches(&servingv1.Revision{}, handler.EnqueueRequestsFromMapFunc(r.leadingTo)).
		WatchesRawSource(trigger).
		WithOptions(ctrlcontroller.Options{MaxConcurrentReconciles: 8}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the route controller: %w", err)
	}
	return c.Manager.Add(restorer{r})
}

// everyone asks for a reconcile of all Routes, as the settings changed.
func (r *Reconciler) everyone(ctx context.Context, fire func(types.NamespacedName)) {
	var list servingv1.RouteList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing routes after a change of settings", "error", err)
		return
	}
	for i := range list.Items {
		fire(client.ObjectKeyFromObject(&list.Items[i]))
	}
}

// Reconcile brings one Route's table entry, Services, Ingress and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if s == nil {
		r.book.Drop(req.NamespacedName)
		return ctrl.Result{}, r.forget(ctx, req.NamespacedName)
	}
	n := r.naming
	n.settings = s.settings
	p := n.decide(*s, r.gateway)
	if err := controller.Settled(r.act(ctx, *s, p)); err != nil || p.due.IsZero() {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: max(time.Millisecond, time.Until(p.due))}, nil
}

// act publishes first, then writes Services, Ingress, status and notes.
func (r *Reconciler) act(ctx context.Context, s state, p plan) error {
	key := client.ObjectKeyFromObject(s.route)
	if err := r.writeServices(ctx, s.route, &p); err != nil {
		return err
	}
	if err := r.writeCertificates(ctx, s.route, &p); err != nil {
		return err
	}
	served, err := r.publish(ctx, key, p)
	if err != nil {
		return err
	}
	if err := r.writeIngress(ctx, s, &p, served); err != nil {
		return err
	}
	if served != nil {
		p.fail(served)
	}
	controller.Finish(p.after, s.route)
	if !equality.Semantic.DeepEqual(s.route.Status, p.after.Status) {
		if err := r.client.Status().Update(ctx, p.after); err != nil {
			return fmt.Errorf("updating status of route %s: %w", key, err)
		}
	}
	all, err := notes(s, p.after, time.Now())
	if err != nil {
		return err
	}
	return r.annotate(ctx, all)
}

// publish brings the table up to date; served is what is wrong with this Route's hosts.
func (r *Reconciler) publish(ctx context.Context, key types.NamespacedName, p plan) (served, err error) {
	if p.foreign {
		r.book.Drop(key)
	}
	if p.entry == nil {
		return nil, nil
	}
	served = r.book.Put(ctx, key, *p.entry)
	if errors.Is(served, context.Canceled) {
		return nil, served
	}
	return served, nil
}

// writeServices makes the Route's Kubernetes Services. A name that turns out to be another's takes
// the Route off the table's next version.
func (r *Reconciler) writeServices(ctx context.Context, route *servingv1.Route, p *plan) error {
	for _, svc := range p.createServices {
		err := r.client.Create(ctx, svc)
		switch {
		case err == nil:
			r.events.Eventf(route, svc, corev1.EventTypeNormal, "Created", "Create", "Created placeholder service %q", svc.Name)
		case apierrors.IsAlreadyExists(err):
			if err := r.taken(ctx, route, svc, p); err != nil {
				return err
			}
		default:
			r.events.Eventf(route, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create placeholder service %q: %v", svc.Name, err)
			return fmt.Errorf("creating service %s/%s: %w", svc.Namespace, svc.Name, err)
		}
	}
	for _, svc := range p.updateServices {
		if err := r.client.Update(ctx, svc); err != nil {
			return fmt.Errorf("updating service %s/%s: %w", svc.Namespace, svc.Name, err)
		}
	}
	for _, svc := range p.deleteServices {
		if err := r.client.Delete(ctx, svc); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting service %s/%s: %w", svc.Namespace, svc.Name, err)
		}
	}
	return nil
}

// taken looks at the Service that already has the name: the Route's own, which the cache did not
// know yet, or somebody else's, which the cache never holds.
func (r *Reconciler) taken(ctx context.Context, route *servingv1.Route, svc *corev1.Service, p *plan) error {
	var have corev1.Service
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(svc), &have); err != nil {
		return fmt.Errorf("getting service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	for _, o := range have.OwnerReferences {
		if o.UID == route.UID {
			return nil
		}
	}
	p.entry, p.ingress = nil, nil
	p.status.MarkServiceNotOwned(svc.Name)
	return nil
}

// Package interceptorroute reconciles the InterceptorRoutes of KEDA's HTTP add-on: the gateway's table
// carries them before the status says so.
package interceptorroute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ebb.dev/ebb/internal/component/controller"
)

// A Reconciler keeps the table's chapter of InterceptorRoutes, and their status.
type Reconciler struct {
	client client.Client
	maps   client.Reader // of ConfigMaps with placeholders
	book   *controller.Chapter
	log    *slog.Logger
}

// Setup adds the controller to the manager.
func Setup(_ context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{client: c.Manager.GetClient(), maps: c.Manager.GetCache(), book: c.Book.Chapter(trigger.Fire), log: c.Log}
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("interceptorroute").
		For(&httpv1beta1.InterceptorRoute{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.showing)).
		WatchesRawSource(trigger).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the InterceptorRoute controller: %w", err)
	}
	return c.Manager.Add(restorer{r})
}

// restorer fills the chapter, once the cache is there, so that after a restart nobody waits for his
// route's turn.
type restorer struct{ r *Reconciler }

// Start implements manager.Runnable.
func (x restorer) Start(ctx context.Context) error {
	var list httpv1beta1.InterceptorRouteList
	if err := x.r.client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing InterceptorRoutes to restore: %w", err)
	}
	entries := map[types.NamespacedName]controller.Entry{}
	for i := range list.Items {
		route := &list.Items[i]
		e, err := x.r.entry(ctx, route)
		if err != nil {
			return err
		}
		entries[client.ObjectKeyFromObject(route)] = e
	}
	x.r.book.Fill(entries)
	return nil
}

// showing lists the routes whose placeholder is in a ConfigMap.
func (r *Reconciler) showing(ctx context.Context, of client.Object) []reconcile.Request {
	var list httpv1beta1.InterceptorRouteList
	if err := r.client.List(ctx, &list, client.InNamespace(of.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		r.log.Error("listing InterceptorRoutes after a change of a ConfigMap", "error", err)
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		if shown(&list.Items[i]) == of.GetName() {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// shown names the ConfigMap a route's placeholder is in, if it is in one.
func shown(route *httpv1beta1.InterceptorRoute) string {
	cold := route.Spec.ColdStart
	if cold == nil || cold.Placeholder == nil || cold.Placeholder.Response == nil || cold.Placeholder.Response.BodyFromConfigMap == nil {
		return ""
	}
	return cold.Placeholder.Response.BodyFromConfigMap.Name
}

// entry makes a route's part of the table.
func (r *Reconciler) entry(ctx context.Context, route *httpv1beta1.InterceptorRoute) (controller.Entry, error) {
	name := shown(route)
	if name == "" {
		return controller.Intercepted(route, nil), nil
	}
	var from corev1.ConfigMap
	err := r.maps.Get(ctx, types.NamespacedName{Namespace: route.Namespace, Name: name}, &from)
	switch {
	case apierrors.IsNotFound(err):
		return controller.Intercepted(route, nil), nil
	case err != nil:
		return controller.Entry{}, fmt.Errorf("getting config map %s/%s: %w", route.Namespace, name, err)
	}
	files := from.Data
	if files == nil {
		files = map[string]string{}
	}
	return controller.Intercepted(route, files), nil
}

// Reconcile brings one route's part of the table and its status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var route httpv1beta1.InterceptorRoute
	if err := r.client.Get(ctx, req.NamespacedName, &route); err != nil {
		if apierrors.IsNotFound(err) {
			r.book.Drop(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("getting InterceptorRoute %s: %w", req, err)
	}
	e, err := r.entry(ctx, &route)
	if err != nil {
		return ctrl.Result{}, err
	}
	served := r.book.Put(ctx, req.NamespacedName, e)
	if errors.Is(served, context.Canceled) {
		return ctrl.Result{}, served
	}
	after := decide(&route, served)
	if equality.Semantic.DeepEqual(route.Status, after.Status) {
		return ctrl.Result{}, nil
	}
	if err := r.client.Status().Update(ctx, after); err != nil {
		return ctrl.Result{}, controller.Settled(err)
	}
	return ctrl.Result{}, nil
}

// decide returns the route with the status it is to have; served is what the table has against it.
func decide(route *httpv1beta1.InterceptorRoute, served error) *httpv1beta1.InterceptorRoute {
	after := route.DeepCopy()
	condition := metav1.Condition{
		Type: httpv1beta1.ConditionTypeReady, Status: metav1.ConditionTrue, ObservedGeneration: route.Generation,
		Reason: httpv1beta1.ConditionReasonReconciled, Message: "InterceptorRoute reconciled",
	}
	if served != nil {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, controller.NotServed, served.Error()
	}
	meta.SetStatusCondition(&after.Status.Conditions, condition)
	return after
}

// Package httpscaledobject reconciles the HTTPScaledObjects of KEDA's HTTP add-on: each is a route in
// the gateway's table and has a ScaledObject of its own, which counts the route's requests.
package httpscaledobject

import (
	"context"
	"errors"
	"fmt"

	httpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/component/controller"
)

// finalizer is upstream's, so that its objects can be taken over. Nothing here needs one.
const finalizer = "httpscaledobject.http.keda.sh"

// A Reconciler keeps the table's chapter of HTTPScaledObjects, their ScaledObjects and status.
type Reconciler struct {
	client client.Client
	book   *controller.Chapter
}

// state is what is known of an HTTPScaledObject.
type state struct {
	object *httpv1alpha1.HTTPScaledObject
	scaled *kedav1alpha1.ScaledObject // of its name; nil if there is none
	routed bool                       // an InterceptorRoute of its name is there, and goes before it
	served error                      // what the table has against it
}

// Setup adds the controller to the manager.
func Setup(_ context.Context, c controller.Config) error {
	trigger := &controller.Trigger{}
	r := &Reconciler{client: c.Manager.GetClient(), book: c.Book.Chapter(trigger.Fire)}
	changed := predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	err := ctrl.NewControllerManagedBy(c.Manager).
		Named("httpscaledobject").
		For(&httpv1alpha1.HTTPScaledObject{}, builder.WithPredicates(changed)).
		Owns(&kedav1alpha1.ScaledObject{}, builder.WithPredicates(changed)).
		Watches(&httpv1beta1.InterceptorRoute{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(trigger).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the HTTPScaledObject controller: %w", err)
	}
	return c.Manager.Add(restorer{r})
}

// restorer fills the chapter, once the cache is there, so that after a restart nobody waits for his
// route's turn.
type restorer struct{ r *Reconciler }

// Start implements manager.Runnable.
func (x restorer) Start(ctx context.Context) error {
	var list httpv1alpha1.HTTPScaledObjectList
	if err := x.r.client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing HTTPScaledObjects to restore: %w", err)
	}
	entries := map[types.NamespacedName]controller.Entry{}
	for i := range list.Items {
		key := client.ObjectKeyFromObject(&list.Items[i])
		routed, err := x.r.routed(ctx, key)
		if err != nil {
			return err
		}
		if !routed && list.Items[i].DeletionTimestamp == nil {
			entries[key] = controller.Intercepted(routeOf(&list.Items[i]), nil)
		}
	}
	x.r.book.Fill(entries)
	return nil
}

// Reconcile brings one HTTPScaledObject's part of the table, its ScaledObject and status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s, err := r.observe(ctx, req.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	if s == nil {
		r.book.Drop(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if s.object.DeletionTimestamp != nil {
		r.book.Drop(req.NamespacedName)
		return ctrl.Result{}, controller.Settled(r.release(ctx, s.object))
	}
	if err := r.publish(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, controller.Settled(r.act(ctx, s))
}

// observe gathers what is known; nil if the object is gone.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{object: &httpv1alpha1.HTTPScaledObject{}, scaled: &kedav1alpha1.ScaledObject{}}
	if err := r.client.Get(ctx, key, s.object); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("getting HTTPScaledObject %s: %w", key, err)
	}
	var err error
	if s.routed, err = r.routed(ctx, key); err != nil {
		return nil, err
	}
	switch err := r.client.Get(ctx, key, s.scaled); {
	case apierrors.IsNotFound(err):
		s.scaled = nil
	case err != nil:
		return nil, fmt.Errorf("getting scaled object %s: %w", key, err)
	}
	return s, nil
}

// routed tells whether there is an InterceptorRoute of that name.
func (r *Reconciler) routed(ctx context.Context, key types.NamespacedName) (bool, error) {
	var route httpv1beta1.InterceptorRoute
	switch err := r.client.Get(ctx, key, &route); {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("getting InterceptorRoute %s: %w", key, err)
	}
	return true, nil
}

// publish brings the table up to date, before there is a ScaledObject that looks there.
func (r *Reconciler) publish(ctx context.Context, s *state) error {
	key := client.ObjectKeyFromObject(s.object)
	if s.routed {
		r.book.Drop(key)
		return nil
	}
	s.served = r.book.Put(ctx, key, controller.Intercepted(routeOf(s.object), nil))
	if errors.Is(s.served, context.Canceled) {
		return s.served
	}
	return nil
}

// act writes the finalizer, the ScaledObject and the status.
func (r *Reconciler) act(ctx context.Context, s *state) error {
	if !controllerutil.ContainsFinalizer(s.object, finalizer) {
		next := s.object.DeepCopy()
		controllerutil.AddFinalizer(next, finalizer)
		if err := r.client.Patch(ctx, next, client.MergeFromWithOptions(s.object, client.MergeFromWithOptimisticLock{})); err != nil {
			return fmt.Errorf("writing the finalizer of HTTPScaledObject %s/%s: %w", next.Namespace, next.Name, err)
		}
		s.object = next
	}
	failure := r.scale(ctx, s)
	after := decide(s, failure)
	if !equality.Semantic.DeepEqual(s.object.Status, after.Status) {
		if err := r.client.Status().Update(ctx, after); err != nil {
			return fmt.Errorf("updating status of HTTPScaledObject %s/%s: %w", after.Namespace, after.Name, err)
		}
	}
	if controller.Settled(failure) == nil || errors.Is(failure, errBothMetrics) {
		return nil
	}
	return failure
}

// release lets an object go that is being deleted.
func (r *Reconciler) release(ctx context.Context, o *httpv1alpha1.HTTPScaledObject) error {
	next := o.DeepCopy()
	if !controllerutil.RemoveFinalizer(next, finalizer) {
		return nil
	}
	return r.client.Patch(ctx, next, client.MergeFromWithOptions(o, client.MergeFromWithOptimisticLock{}))
}

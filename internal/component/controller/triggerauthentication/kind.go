package triggerauthentication

import (
	"context"
	"fmt"
	"slices"
	"time"

	kedaeventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// kind is one of the two kinds of authentications.
type kind struct {
	name, controller          string
	created, updated, removed kedaeventingv1alpha1.CloudEventType
	object                    func() client.Object
}

var (
	namespaced = kind{
		name: "TriggerAuthentication", controller: "triggerauthentication",
		created: kedaeventingv1alpha1.TriggerAuthenticationCreatedType,
		updated: kedaeventingv1alpha1.TriggerAuthenticationUpdatedType,
		removed: kedaeventingv1alpha1.TriggerAuthenticationRemovedType,
		object:  func() client.Object { return &kedav1alpha1.TriggerAuthentication{} },
	}
	cluster = kind{
		name: "ClusterTriggerAuthentication", controller: "clustertriggerauthentication",
		created: kedaeventingv1alpha1.ClusterTriggerAuthenticationCreatedType,
		updated: kedaeventingv1alpha1.ClusterTriggerAuthenticationUpdatedType,
		removed: kedaeventingv1alpha1.ClusterTriggerAuthenticationRemovedType,
		object:  func() client.Object { return &kedav1alpha1.ClusterTriggerAuthentication{} },
	}
)

// status is where an authentication's status is.
func (k kind) status(o client.Object) *kedav1alpha1.TriggerAuthenticationStatus {
	switch o := o.(type) {
	case *kedav1alpha1.TriggerAuthentication:
		return &o.Status
	case *kedav1alpha1.ClusterTriggerAuthentication:
		return &o.Status
	}
	return &kedav1alpha1.TriggerAuthenticationStatus{}
}

// indexAuthentication finds who uses an authentication by its kind and name.
const indexAuthentication = "ebb.authentication"

// Index adds the look-ups the controllers need to a cache.
func Index(ctx context.Context, x client.FieldIndexer) error {
	for _, user := range []client.Object{&kedav1alpha1.ScaledObject{}, &kedav1alpha1.ScaledJob{}} {
		if err := x.IndexField(ctx, user, indexAuthentication, indexed); err != nil {
			return fmt.Errorf("indexing who uses trigger authentications: %w", err)
		}
	}
	return nil
}

func indexed(o client.Object) []string {
	var out []string
	for _, ref := range references(o) {
		if key := kindOf(ref) + "/" + ref.Name; !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

// references lists the authentications that an object's triggers name.
func references(o client.Object) []kedav1alpha1.AuthenticationRef {
	var triggers []kedav1alpha1.ScaleTriggers
	switch o := o.(type) {
	case *kedav1alpha1.ScaledObject:
		triggers = o.Spec.Triggers
	case *kedav1alpha1.ScaledJob:
		triggers = o.Spec.Triggers
	}
	var out []kedav1alpha1.AuthenticationRef
	for i := range triggers {
		if ref := triggers[i].AuthenticationRef; ref != nil {
			out = append(out, *ref)
		}
	}
	return out
}

func kindOf(ref kedav1alpha1.AuthenticationRef) string {
	if ref.Kind == "" {
		return namespaced.name
	}
	return ref.Kind
}

// used maps an object to the authentications of this kind that its triggers name.
func (k kind) used(o client.Object) []ctrl.Request {
	var out []ctrl.Request
	for _, ref := range references(o) {
		if kindOf(ref) != k.name {
			continue
		}
		req := ctrl.Request{}
		req.Name = ref.Name
		if k.name == namespaced.name {
			req.Namespace = o.GetNamespace()
		}
		if !slices.Contains(out, req) {
			out = append(out, req)
		}
	}
	return out
}

// settle is how long changes of who uses an authentication are gathered: many may come with one
// manifest, and each would be a write of a long list.
const settle = 200 * time.Millisecond

// usage enqueues authentications whose users come, change or go.
func (k kind) usage() handler.Funcs {
	type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]
	enqueue := func(q queue, objects ...client.Object) {
		for _, o := range objects {
			for _, req := range k.used(o) {
				q.AddAfter(req, settle)
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { enqueue(q, e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) { enqueue(q, e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { enqueue(q, e.Object) },
	}
}

// using lets pass what may change who uses what.
var using = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
		(e.ObjectOld.GetDeletionTimestamp() == nil) != (e.ObjectNew.GetDeletionTimestamp() == nil)
}}

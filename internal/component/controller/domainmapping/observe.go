package domainmapping

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/domain/render"
)

// observe gathers the DomainMapping, its claim and what it refers to; nil when it is gone.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*state, error) {
	s := &state{mapping: &servingv1beta1.DomainMapping{}, settings: r.settings.Current()}
	if err := r.client.Get(ctx, key, s.mapping); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.mapping.DeletionTimestamp != nil {
		return s, nil
	}
	if err := r.holdings(ctx, s); err != nil {
		return nil, err
	}
	var err error
	s.target, err = r.references.resolve(ctx, &s.mapping.Spec.Ref)
	return s, err
}

// holdings gathers the claim, the Ingress and the Certificate.
func (r *Reconciler) holdings(ctx context.Context, s *state) error {
	claim, ingress, cert := &netv1alpha1.ClusterDomainClaim{}, &netv1alpha1.Ingress{}, &netv1alpha1.Certificate{}
	switch err := r.client.Get(ctx, types.NamespacedName{Name: s.mapping.Name}, claim); {
	case err == nil:
		s.claim = claim
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("getting the claim of domain %s: %w", s.mapping.Name, err)
	}
	at := types.NamespacedName{Namespace: s.mapping.Namespace, Name: render.MappingIngressName(s.mapping)}
	switch err := r.client.Get(ctx, at, ingress); {
	case err == nil:
		s.ingress = ingress
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("getting ingress %s: %w", at, err)
	}
	at.Name = certificate.OfDomain(s.mapping, "").Name
	switch err := r.client.Get(ctx, at, cert); {
	case err == nil:
		s.certificate = cert
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("getting certificate %s: %w", at, err)
	}
	return nil
}

const (
	// indexDomain finds DomainMappings of any namespace by their domain.
	indexDomain = "ebb.domain"
	// indexReference finds DomainMappings by what they refer to.
	indexReference = "ebb.reference"
)

// Index adds the look-ups the controller needs to a cache.
func Index(ctx context.Context, x client.FieldIndexer) error {
	for name, value := range map[string]client.IndexerFunc{
		indexDomain: func(o client.Object) []string { return []string{o.GetName()} },
		indexReference: func(o client.Object) []string {
			dm, ok := o.(*servingv1beta1.DomainMapping)
			if !ok {
				return nil
			}
			gk := schema.FromAPIVersionAndKind(dm.Spec.Ref.APIVersion, dm.Spec.Ref.Kind).GroupKind()
			return []string{referenceKey(gk, dm.Spec.Ref.Name)}
		},
	} {
		if err := x.IndexField(ctx, &servingv1beta1.DomainMapping{}, name, value); err != nil {
			return fmt.Errorf("indexing domain mappings by %s: %w", name, err)
		}
	}
	return nil
}

func referenceKey(gk schema.GroupKind, name string) string { return gk.String() + "/" + name }

// named maps a claim to the DomainMappings of its name.
func (r *Reconciler) named(ctx context.Context, o client.Object) []ctrl.Request {
	return r.list(ctx, client.MatchingFields{indexDomain: o.GetName()})
}

// referring maps an object to the DomainMappings that refer to it.
func (r *Reconciler) referring(ctx context.Context, o client.Object) []ctrl.Request {
	gvk, err := apiutil.GVKForObject(o, r.client.Scheme())
	if err != nil {
		r.log.Error("telling what domain mappings refer to", "name", o.GetName(), "error", err)
		return nil
	}
	return r.list(ctx, client.InNamespace(o.GetNamespace()), client.MatchingFields{indexReference: referenceKey(gvk.GroupKind(), o.GetName())})
}

func (r *Reconciler) list(ctx context.Context, which ...client.ListOption) []ctrl.Request {
	var list servingv1beta1.DomainMappingList
	if err := r.client.List(ctx, &list, append(which, client.UnsafeDisableDeepCopy)...); err != nil {
		r.log.Error("listing domain mappings", "error", err)
		return nil
	}
	out := make([]ctrl.Request, 0, len(list.Items))
	for i := range list.Items {
		out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}

// readdressed lets pass what may change where a reference leads: most updates of a Service do not.
var readdressed = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return !equality.Semantic.DeepEqual(address(e.ObjectOld), address(e.ObjectNew))
}}

func address(o client.Object) any {
	switch o := o.(type) {
	case *servingv1.Service:
		return o.Status.Address
	case *servingv1.Route:
		return o.Status.Address
	}
	return nil
}

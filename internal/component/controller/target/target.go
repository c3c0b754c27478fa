// Package target scales objects by their scale subresource, whatever their kind, and Knative's Services
// by floors under their requests' autoscaling.
package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/scale"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
)

// Scales are targets that have a scale subresource, and Knative's Services.
type Scales struct {
	services *services
	known    Known
	mapper   meta.RESTMapper
	scales   scale.ScalesGetter
	live     client.Reader // of objects of any kind, which are not worth a cache
}

// Known are numbers of replicas that need not be asked for. *scales.Scales has some.
type Known interface {
	Replicas(of schema.GroupResource, namespace, name string) (n int32, known bool)
}

// New returns the targets that a manager's API has. What Services are to have at least is told to floors.
func New(ctx context.Context, m ctrl.Manager, floors Floors, known Known) (*Scales, error) {
	kinds, err := discovery.NewDiscoveryClientForConfigAndClient(m.GetConfig(), m.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("making a client of kinds: %w", err)
	}
	scales, err := scale.NewForConfig(m.GetConfig(), m.GetRESTMapper(), dynamic.LegacyAPIPathResolverFunc,
		scale.NewDiscoveryScaleKindResolver(kinds))
	if err != nil {
		return nil, fmt.Errorf("making a client of scale subresources: %w", err)
	}
	services := newServices(m.GetClient(), floors)
	if err := services.follow(ctx, m.GetCache()); err != nil {
		return nil, err
	}
	return &Scales{services: services, known: known, mapper: m.GetRESTMapper(), scales: scales, live: m.GetAPIReader()}, nil
}

// Resolve implements controller.Targets.
func (s *Scales) Resolve(ref *kedav1alpha1.ScaleTarget) (kedav1alpha1.GroupVersionKindResource, error) {
	return kedav1alpha1.ParseGVKR(s.mapper, ref.APIVersion, ref.Kind)
}

// Horizontal implements controller.Targets.
func (*Scales) Horizontal(kind kedav1alpha1.GroupVersionKindResource) bool { return !isService(kind) }

// Replicas implements controller.Targets.
func (s *Scales) Replicas(ctx context.Context, of activation.Target) (int32, error) {
	if isService(of.Kind) {
		return s.services.replicas(ctx, of)
	}
	if n, known := s.known.Replicas(of.Kind.GroupResource(), of.Namespace, of.Name); known {
		return n, nil
	}
	have, err := s.scales.Scales(of.Namespace).Get(ctx, of.Kind.GroupResource(), of.Name, metav1.GetOptions{})
	if err != nil {
		return 0, s.explain(ctx, of, err)
	}
	return have.Spec.Replicas, nil
}

// SetReplicas implements controller.Targets.
func (s *Scales) SetReplicas(ctx context.Context, of activation.Target, n int32) error {
	if isService(of.Kind) {
		return s.services.set(ctx, of, n)
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"replicas": n}})
	if err != nil {
		return fmt.Errorf("writing %d replicas as JSON: %w", n, err)
	}
	resource := of.Kind.GroupVersion().WithResource(of.Kind.Resource)
	_, err = s.scales.Scales(of.Namespace).Patch(ctx, resource, of.Name, types.MergePatchType, body, metav1.PatchOptions{})
	return err
}

// explain tells why there is no number of replicas to read: the object is not there, its kind has
// none, or it is something that may pass.
func (s *Scales) explain(ctx context.Context, of activation.Target, cause error) error {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(of.Kind.GroupVersionKind())
	err := s.live.Get(ctx, types.NamespacedName{Namespace: of.Namespace, Name: of.Name}, object)
	switch {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		return &controller.TargetError{Missing: true, Err: err}
	case err != nil:
		return err
	case passing(cause):
		return cause
	}
	return &controller.TargetError{Err: cause}
}

// passing tells a failure that says nothing about the object.
func passing(err error) bool {
	var (
		answer apierrors.APIStatus
		wire   *url.Error
	)
	return errors.As(err, &wire) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &answer) && !apierrors.IsNotFound(err) && !apierrors.IsMethodNotSupported(err)
}

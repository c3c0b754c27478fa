package target

import (
	"context"
	"errors"
	"fmt"
	"sync"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"knative.dev/serving/pkg/apis/autoscaling"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/scale"
)

// Floors hold revisions at a least number of instances.
type Floors interface {
	// SetFloor puts a floor in the place of the one before; it does not block.
	SetFloor(revision types.NamespacedName, floor scale.Floor)
}

// errClass says that a Service's instances are not ebb's autoscaler's to count.
var errClass = errors.New("triggers and requests scale together only revisions of class " + autoscaling.KPA)

func isService(kind kedav1alpha1.GroupVersionKindResource) bool {
	return kind.Group == serving.GroupName && kind.Kind == "Service"
}

// services are Knative's Services. What triggers want is a floor of the revision that gets most of the
// traffic, and moves with it. It is not kept over a restart: the triggers say it again.
type services struct {
	client client.Reader // a cache, which answers at once
	floors Floors

	mu  sync.Mutex // guards all; held while floors are told, so that the last word is the last
	all map[types.NamespacedName]*floor
}

// A floor is what one Service is to have at least.
type floor struct {
	by       string // the ScaledObject
	count    int32
	revision types.NamespacedName // that was told; zero for none
}

func newServices(c client.Reader, floors Floors) *services {
	return &services{client: c, floors: floors, all: map[types.NamespacedName]*floor{}}
}

// follow moves floors with traffic, and drops those of Services and ScaledObjects that are gone.
func (s *services) follow(ctx context.Context, objects ctrlcache.Cache) error {
	for _, watched := range []struct {
		object  client.Object
		changed func(client.Object)
		gone    func(types.NamespacedName)
	}{
		{&servingv1.Service{}, s.serviceChanged, s.serviceGone},
		{&kedav1alpha1.ScaledObject{}, s.scaledChanged, func(key types.NamespacedName) { s.drop(key, types.NamespacedName{}) }},
	} {
		informer, err := objects.GetInformer(ctx, watched.object, ctrlcache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching targets of ScaledObjects: %w", err)
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			UpdateFunc: func(_, o any) {
				if object, ok := o.(client.Object); ok {
					watched.changed(object)
				}
			},
			DeleteFunc: func(o any) {
				if name, err := cache.DeletionHandlingObjectToName(o); err == nil {
					watched.gone(name.AsNamespacedName())
				}
			},
		}); err != nil {
			return fmt.Errorf("watching targets of ScaledObjects: %w", err)
		}
	}
	return nil
}

// replicas is the present floor of a Service.
func (s *services) replicas(ctx context.Context, of activation.Target) (int32, error) {
	service, err := s.find(ctx, of)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.all[client.ObjectKeyFromObject(service)]; f != nil {
		return f.count, nil
	}
	return 0, nil
}

// set gives a Service a floor.
func (s *services) set(ctx context.Context, of activation.Target, n int32) error {
	service, err := s.find(ctx, of)
	if err != nil {
		return err
	}
	key := client.ObjectKeyFromObject(service)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[key]
	if f == nil {
		f = &floor{}
		s.all[key] = f
	}
	f.by, f.count = of.By, n
	s.tell(f, busiest(service))
	if n == 0 {
		delete(s.all, key)
	}
	return nil
}

// find reads the Service. The error is a *controller.TargetError if it cannot be scaled.
func (s *services) find(ctx context.Context, of activation.Target) (*servingv1.Service, error) {
	service := &servingv1.Service{}
	err := s.client.Get(ctx, types.NamespacedName{Namespace: of.Namespace, Name: of.Name}, service)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &controller.TargetError{Missing: true, Err: err}
	case err != nil:
		return nil, fmt.Errorf("reading service %s/%s: %w", of.Namespace, of.Name, err)
	}
	if class := service.Spec.Template.Annotations[autoscaling.ClassAnnotationKey]; class != "" && class != autoscaling.KPA {
		return nil, &controller.TargetError{Err: fmt.Errorf("service %s/%s asks for class %s: %w", of.Namespace, of.Name, class, errClass)}
	}
	return service, nil
}

// tell has a floor be in force for a revision, and no longer for the one before; s.mu is held.
func (s *services) tell(f *floor, revision types.NamespacedName) {
	if f.revision != revision && f.revision.Name != "" {
		s.floors.SetFloor(f.revision, scale.Floor{})
	}
	f.revision = revision
	if revision.Name == "" {
		return // it will have one
	}
	var to scale.Floor
	if f.count > 0 {
		to = scale.Floor{Count: f.count, By: "triggers of ScaledObject " + revision.Namespace + "/" + f.by}
	}
	s.floors.SetFloor(revision, to)
}

// busiest is the revision that gets most of a Service's traffic; of several the latest one.
func busiest(service *servingv1.Service) types.NamespacedName {
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Status.LatestReadyRevisionName}
	share := map[string]int64{}
	for _, t := range service.Status.Traffic {
		if t.Percent != nil {
			share[t.RevisionName] += *t.Percent
		}
	}
	for _, t := range service.Status.Traffic {
		if share[t.RevisionName] > share[key.Name] {
			key.Name = t.RevisionName
		}
	}
	return key
}

// serviceChanged moves a Service's floor with its traffic.
func (s *services) serviceChanged(o client.Object) {
	service, ok := o.(*servingv1.Service)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.all[client.ObjectKeyFromObject(service)]; f != nil && f.revision != busiest(service) {
		s.tell(f, busiest(service))
	}
}

func (s *services) serviceGone(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.all[key]; f != nil {
		s.tell(f, types.NamespacedName{})
		delete(s.all, key)
	}
}

// scaledChanged drops what a ScaledObject asked for of Services that it does not name any more.
func (s *services) scaledChanged(o client.Object) {
	so, ok := o.(*kedav1alpha1.ScaledObject)
	if !ok {
		return
	}
	keep := types.NamespacedName{Namespace: so.Namespace}
	if kind := so.Status.ScaleTargetGVKR; so.Spec.ScaleTargetRef != nil && kind != nil && isService(*kind) {
		keep.Name = so.Spec.ScaleTargetRef.Name
	}
	s.drop(client.ObjectKeyFromObject(so), keep)
}

// drop ends the floors of a ScaledObject's, but for one Service.
func (s *services) drop(by, keep types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, f := range s.all {
		if key.Namespace == by.Namespace && f.by == by.Name && key != keep {
			s.tell(f, types.NamespacedName{})
			delete(s.all, key)
		}
	}
}

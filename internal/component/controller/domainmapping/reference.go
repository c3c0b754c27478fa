package domainmapping

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// kindPatience is how long until a reference of a kind that the cluster does not know is tried again,
// and how long the first reading of a kind may take.
const kindPatience = time.Minute

// target is where a reference leads.
type target struct {
	url     *apis.URL
	problem error         // why there is no url
	again   time.Duration // when nobody will tell that the problem went away
}

// references reads what DomainMappings refer to: Services and Routes, which the controllers keep
// anyway, and objects of any other kind, which is followed from the first reference on.
type references struct {
	served client.Reader                                           // Services and Routes
	others func(context.Context, *unstructured.Unstructured) error // reads one by its kind, namespace and name
}

func newReferences(m ctrl.Manager, c ctrlcontroller.Controller, h handler.EventHandler) (*references, error) {
	others, err := cache.New(m.GetConfig(), cache.Options{
		HTTPClient: m.GetHTTPClient(), Scheme: m.GetScheme(), Mapper: m.GetRESTMapper(), DefaultTransform: addressOnly,
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of references: %w", err)
	}
	f := &followed{cache: others, controller: c, handler: h, kinds: map[schema.GroupVersionKind]bool{}}
	return &references{served: m.GetClient(), others: f.get}, m.Add(early{others})
}

// early has the manager start a cache before what reads it.
type early struct{ cache.Cache }

// GetCache is what the manager knows caches by.
func (e early) GetCache() cache.Cache { return e.Cache }

// followed are the kinds that are watched because somebody refers to one of them.
type followed struct {
	cache      cache.Cache
	controller ctrlcontroller.Controller
	handler    handler.EventHandler

	mu    sync.Mutex // guards kinds
	kinds map[schema.GroupVersionKind]bool
}

// get reads an object, having its kind followed first.
func (f *followed) get(ctx context.Context, o *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, kindPatience)
	defer cancel()
	key := client.ObjectKeyFromObject(o)
	kind := &unstructured.Unstructured{} // before Get, which may leave o empty
	kind.SetGroupVersionKind(o.GroupVersionKind())
	err := f.cache.Get(ctx, key, o)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kinds[kind.GroupVersionKind()] {
		return err
	}
	if e := f.controller.Watch(source.Kind[client.Object](f.cache, kind, f.handler)); e != nil {
		return fmt.Errorf("following %s: %w", kind.GroupVersionKind(), e)
	}
	f.kinds[kind.GroupVersionKind()] = true
	return err
}

// addressOnly keeps of an object who it is and where it is addressed.
func addressOnly(in any) (any, error) {
	o, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in, nil
	}
	slim := &unstructured.Unstructured{Object: map[string]any{}}
	slim.SetGroupVersionKind(o.GroupVersionKind())
	slim.SetNamespace(o.GetNamespace())
	slim.SetName(o.GetName())
	slim.SetUID(o.GetUID())
	slim.SetResourceVersion(o.GetResourceVersion())
	for _, field := range []string{"address", "addresses"} {
		if v, found, err := unstructured.NestedFieldNoCopy(o.Object, "status", field); found && err == nil {
			if err := unstructured.SetNestedField(slim.Object, runtime.DeepCopyJSONValue(v), "status", field); err != nil {
				return nil, err
			}
		}
	}
	return slim, nil
}

// resolve finds where a reference leads. An error is one of reading, not of the reference.
func (r *references) resolve(ctx context.Context, ref *duckv1.KReference) (target, error) {
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	addresses, err := r.read(ctx, gvk, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
	switch {
	case err == nil:
		url, problem := choose(ref, addresses)
		return target{url: url, problem: problem}, nil
	case apierrors.IsNotFound(err):
		plural, _ := meta.UnsafeGuessKindToResource(gvk)
		return target{problem: missing(ref, apierrors.NewNotFound(plural.GroupResource(), ref.Name))}, nil
	case meta.IsNoMatchError(err):
		return target{problem: missing(ref, err), again: kindPatience}, nil
	}
	return target{}, fmt.Errorf("reading what a domain mapping refers to: %w", err)
}

func missing(ref *duckv1.KReference, err error) error {
	return fmt.Errorf("failed to get object %s/%s: %w", ref.Namespace, ref.Name, err)
}

// read returns an object's addresses.
func (r *references) read(ctx context.Context, gvk schema.GroupVersionKind, key types.NamespacedName) (duckv1.AddressStatus, error) {
	switch gvk {
	case servingv1.SchemeGroupVersion.WithKind("Service"):
		o := &servingv1.Service{}
		err := r.served.Get(ctx, key, o)
		return duckv1.AddressStatus{Address: o.Status.Address}, err
	case servingv1.SchemeGroupVersion.WithKind("Route"):
		o := &servingv1.Route{}
		err := r.served.Get(ctx, key, o)
		return duckv1.AddressStatus{Address: o.Status.Address}, err
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(gvk)
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	if err := r.others(ctx, o); err != nil {
		return duckv1.AddressStatus{}, err
	}
	if gvk == corev1.SchemeGroupVersion.WithKind("Service") { // has a name in the cluster without saying so
		url := &apis.URL{Scheme: "http", Host: key.Name + "." + key.Namespace + "." + clusterServices}
		return duckv1.AddressStatus{Address: &duckv1.Addressable{URL: url}}, nil
	}
	var a duckv1.AddressableType
	if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &a) != nil {
		a.Status = duckv1.AddressStatus{} // whatever it has there is no address
	}
	return a.Status, nil
}

// choose takes the address the reference names, or else the first.
func choose(ref *duckv1.KReference, s duckv1.AddressStatus) (*apis.URL, error) {
	all := s.Addresses
	named := ref.Address != nil && *ref.Address != ""
	if len(all) == 0 && s.Address != nil && !named {
		all = []duckv1.Addressable{*s.Address}
	}
	if len(s.Addresses) == 0 && s.Address == nil {
		return nil, fmt.Errorf("address not set for %s", ref)
	}
	if named {
		all = slices.DeleteFunc(slices.Clone(all), func(a duckv1.Addressable) bool { return a.Name == nil || *a.Name != *ref.Address })
		if len(all) == 0 {
			return nil, fmt.Errorf("address with name %q not found for %s", *ref.Address, ref)
		}
	}
	switch url := all[0].URL; {
	case url == nil:
		return nil, fmt.Errorf("URL missing in address of %s", ref)
	case url.Host == "":
		return nil, fmt.Errorf("hostname missing in address of %s", ref)
	default:
		return url, nil
	}
}

// Package object reads single objects and follows them by a watch of each alone, however many ask for
// it, so that nobody needs to see all objects of a kind: Secrets above all.
//
// Who follows an object is told when it changed, and reads it from memory; everybody else reads it
// from the API. To miss nothing, either order of reading and following will do.
package object

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// A Kind is a resource and the Go type of its objects.
type Kind[T any] struct{ resource schema.GroupVersionResource }

// The kinds that are read one by one.
var (
	Secrets                       = Kind[corev1.Secret]{corev1.SchemeGroupVersion.WithResource("secrets")}
	ConfigMaps                    = Kind[corev1.ConfigMap]{corev1.SchemeGroupVersion.WithResource("configmaps")}
	ServiceAccounts               = Kind[corev1.ServiceAccount]{corev1.SchemeGroupVersion.WithResource("serviceaccounts")}
	TriggerAuthentications        = Kind[kedav1alpha1.TriggerAuthentication]{kedav1alpha1.GroupVersion.WithResource("triggerauthentications")}
	ClusterTriggerAuthentications = Kind[kedav1alpha1.ClusterTriggerAuthentication]{kedav1alpha1.GroupVersion.WithResource("clustertriggerauthentications")}
)

// Get returns an object, from memory if it is followed. It must not be changed. The error is
// Kubernetes' NotFound where there is none.
func (k Kind[T]) Get(ctx context.Context, s *Store, namespace, name string) (*T, error) {
	at := Key{k.resource, namespace, name}
	raw, err := s.get(ctx, at)
	if err != nil {
		return nil, err
	}
	made := typed[T](raw)
	if made == nil {
		return nil, fmt.Errorf("reading %s: it is not of its kind's shape", at)
	}
	return made, nil
}

// Peek returns an object if it is followed and in memory, else nil. It must not be changed.
func (k Kind[T]) Peek(s *Store, namespace, name string) *T {
	s.mu.Lock()
	f := s.followed[Key{k.resource, namespace, name}]
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	have, _ := f.current()
	if have == nil {
		return nil
	}
	return typed[T](have)
}

// typed makes an object into its Go type, once; nil if it does not fit. Why not is left out: it may
// quote the object.
func typed[T any](r *raw) *T {
	if have, ok := r.made.Load().(*T); ok {
		return have
	}
	made := new(T)
	if runtime.DefaultUnstructuredConverter.FromUnstructured(r.object.Object, made) != nil {
		return nil
	}
	r.made.Store(made)
	return made
}

// Key returns the key of an object of the kind.
func (k Kind[T]) Key(namespace, name string) Key { return Key{k.resource, namespace, name} }

// A Key names an object.
type Key struct {
	Resource        schema.GroupVersionResource
	Namespace, Name string
}

// String names it as people do: "secrets default/mine".
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Resource.Resource + " " + k.Name
	}
	return k.Resource.Resource + " " + k.Namespace + "/" + k.Name
}

// maxRecent is how many objects' versions are remembered that were read and are not followed.
const maxRecent = 4096

// Store has the objects that are followed. Its methods may be called from many goroutines.
type Store struct {
	ctx    context.Context // ends all watches
	client dynamic.Interface
	log    *slog.Logger

	mu       sync.Mutex // guards all below
	followed map[Key]*followed
	recent   map[Key]string // versions of what was read from the API lately, "" for not there
}

// New returns a Store that reads by client, and follows until ctx ends.
func New(ctx context.Context, client dynamic.Interface, log *slog.Logger) *Store {
	return &Store{ctx: ctx, client: client, log: log, followed: map[Key]*followed{}, recent: map[Key]string{}}
}

// Watch has told called after an object came, changed or went, until stop is called; a change between
// an earlier Get and the call is told, too, and now and then one that is none. It returns at once;
// told does not block.
func (s *Store) Watch(key Key, told func()) (stop func()) {
	return s.watch(key, &listener{told: func(bool) { told() }})
}

// WatchFirst is Watch that has told called, with changed false, when the object is in memory for the
// first time, too.
func (s *Store) WatchFirst(key Key, told func(changed bool)) (stop func()) {
	return s.watch(key, &listener{told: told, first: true})
}

func (s *Store) watch(key Key, l *listener) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.followed[key]
	if f == nil {
		ctx, cancel := context.WithCancel(s.ctx)
		f = &followed{store: s, key: key, cancel: cancel, tried: make(chan struct{}), listeners: map[*listener]struct{}{}}
		s.followed[key] = f
		go f.run(ctx)
	}
	f.listeners[l] = struct{}{}
	if f.known {
		before, read := s.recent[key]
		if changed := read && before != f.version(); changed || l.first {
			go l.told(changed)
		}
	}
	return sync.OnceFunc(func() { s.leave(f, l) })
}

// Len is how many objects are followed.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.followed)
}

// leave ends the watch of an object with its last listener.
func (s *Store) leave(f *followed, l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(f.listeners, l)
	if len(f.listeners) == 0 && s.followed[f.key] == f {
		delete(s.followed, f.key)
		f.cancel()
	}
}

// get returns an object from memory, or else from the API.
func (s *Store) get(ctx context.Context, key Key) (*raw, error) {
	s.mu.Lock()
	f := s.followed[key]
	s.mu.Unlock()
	if f != nil {
		select { // it was not asked for for long
		case <-f.tried:
		case <-ctx.Done():
			return nil, fmt.Errorf("reading %s: %w", key, context.Cause(ctx))
		}
		if have, known := f.current(); known {
			if have == nil {
				return nil, apierrors.NewNotFound(key.Resource.GroupResource(), key.Name)
			}
			return have, nil
		}
	}
	object, err := s.client.Resource(key.Resource).Namespace(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	s.remember(key, object, err)
	if err != nil {
		return nil, err
	}
	return &raw{object: object}, nil
}

// remember notes which version was handed out.
func (s *Store) remember(key Key, object *unstructured.Unstructured, missing error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.recent) >= maxRecent {
		clear(s.recent) // costs those who follow now one more look
	}
	if missing != nil {
		s.recent[key] = ""
		return
	}
	s.recent[key] = object.GetResourceVersion()
}

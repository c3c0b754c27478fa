package settings

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Store follows the ConfigMaps and always has the last Settings that parsed.
type Store struct {
	log     *slog.Logger
	current atomic.Pointer[Settings]

	mu   sync.Mutex                   // guards what follows
	good map[string]*corev1.ConfigMap // by name, each as it last parsed
	subs []func()
}

// Fixed returns a store that holds s and follows nothing.
func Fixed(s *Settings) *Store {
	st := &Store{log: slog.New(slog.DiscardHandler), good: map[string]*corev1.ConfigMap{}}
	st.current.Store(s)
	return st
}

// Open reads the ConfigMaps and follows them until ctx ends. It returns after the first reading.
func Open(ctx context.Context, client kubernetes.Interface, log *slog.Logger) (*Store, error) {
	defaults, err := Parse(ctx, nil)
	if err != nil {
		return nil, err
	}
	s := &Store{log: log, good: map[string]*corev1.ConfigMap{}}
	s.current.Store(defaults)

	maps := client.CoreV1().ConfigMaps(Namespace)
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return maps.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return maps.Watch(ctx, o)
		},
	}, client)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.changed(ctx, o, false) },
			UpdateFunc: func(_, o any) { s.changed(ctx, o, false) },
			DeleteFunc: func(o any) { s.changed(ctx, o, true) },
		},
	})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("reading ConfigMaps in %s: %w", Namespace, context.Cause(ctx))
	}
	return s, nil
}

// Current returns the settings in force.
func (s *Store) Current() *Settings { return s.current.Load() }

// Subscribe has fn called after every change. It must not block.
func (s *Store) Subscribe(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = append(s.subs, fn)
}

func (s *Store) changed(ctx context.Context, o any, gone bool) {
	if tomb, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = tomb.Obj
	}
	cm, ok := o.(*corev1.ConfigMap)
	if !ok {
		return
	}
	for _, p := range parsers {
		if p.name == cm.Name {
			s.adopt(ctx, cm, gone)
			return
		}
	}
}

// adopt takes cm in (or out) if the whole still parses, then tells the subscribers.
func (s *Store) adopt(ctx context.Context, cm *corev1.ConfigMap, gone bool) {
	s.mu.Lock()
	next := maps.Clone(s.good)
	if gone {
		delete(next, cm.Name)
	} else {
		next[cm.Name] = cm
	}
	parsed, err := Parse(ctx, next)
	if err != nil {
		s.mu.Unlock()
		s.log.Error("keeping the previous settings", "configmap", cm.Name, "error", err)
		return
	}
	s.good = next
	s.current.Store(parsed)
	subs := s.subs
	s.mu.Unlock()
	for _, fn := range subs {
		fn()
	}
}

// Package keyring has the certificates that the gateway shows, by the Secrets they rest in.
//
// Those of Certificates are marked and come by one watch. Others, which a DomainMapping names, are
// watched one by one while a route names them. A changed Secret takes the place of the former at once;
// one that cannot be read leaves it.
package keyring

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	netapi "knative.dev/networking/pkg/apis/networking"

	"ebb.dev/ebb/internal/platform/authority"
)

// firstPatience is how long Follow waits for a Secret it did not know.
const firstPatience = 2 * time.Second

// renewBefore is how long before its end a certificate made for a host alone is made anew.
const renewBefore = 24 * time.Hour

// maxMade bounds the certificates kept for hosts alone.
const maxMade = 4096

// Config is what a Ring works with.
type Config struct {
	Client kubernetes.Interface
	// Authority signs for hosts whose routes name no Secret.
	Authority *authority.Keeper
	Log       *slog.Logger
}

// A Ring holds certificates. Its methods are safe for concurrent use.
type Ring struct {
	config Config

	mu     sync.RWMutex // guards what follows
	marked map[types.NamespacedName]*tls.Certificate
	named  map[types.NamespacedName]*named
	made   map[string]*tls.Certificate // for hosts without a Secret
}

// named is a Secret without a mark that a route names.
type named struct {
	stop context.CancelFunc
	cert *tls.Certificate // nil until it is there and can be read
}

// New returns an empty Ring.
func New(c Config) *Ring {
	r := &Ring{config: c, marked: map[types.NamespacedName]*tls.Certificate{}, named: map[types.NamespacedName]*named{}, made: map[string]*tls.Certificate{}}
	c.Authority.Subscribe(r.forgetMade)
	return r
}

// Certificate is what a host is to show whose route names that Secret, or none. While the Secret is
// missing, and for a host without one, it is made and signed here.
func (r *Ring) Certificate(host string, secret types.NamespacedName) (*tls.Certificate, error) {
	r.mu.RLock()
	cert := r.marked[secret]
	if n := r.named[secret]; cert == nil && n != nil {
		cert = n.cert
	}
	if cert == nil {
		cert = r.made[host]
		if cert != nil && time.Until(cert.Leaf.NotAfter) < renewBefore {
			cert = nil
		}
	}
	r.mu.RUnlock()
	if cert != nil {
		return cert, nil
	}
	return r.make(host)
}

// make signs for one host.
func (r *Ring) make(host string) (*tls.Certificate, error) {
	pair, err := r.config.Authority.Current().Sign([]string{host}, time.Now())
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %s: %w", host, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.made) >= maxMade {
		clear(r.made) // routes that are gone leave theirs; the others are made again
	}
	r.made[host] = &cert
	return &cert, nil
}

func (r *Ring) forgetMade() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.made)
}

// Marked takes in the Secrets of Certificates; it is the handler of a watch of those.
func (r *Ring) Marked() cache.ResourceEventHandler {
	put := func(o any) {
		if secret, ok := o.(*corev1.Secret); ok {
			r.put(secret)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, o any) { put(o) },
		DeleteFunc: func(o any) {
			if tomb, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tomb.Obj
			}
			if secret, ok := o.(*corev1.Secret); ok {
				r.mu.Lock()
				defer r.mu.Unlock()
				delete(r.marked, keyOf(secret))
			}
		},
	}
}

func (r *Ring) put(secret *corev1.Secret) {
	cert, ok := r.read(secret)
	if !ok {
		return
	}
	key := keyOf(secret)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marked[key] = cert
	if n := r.named[key]; n != nil {
		n.stop()
		delete(r.named, key)
	}
}

// read makes a certificate of a Secret; what is wrong with it is told without a word of the key.
func (r *Ring) read(secret *corev1.Secret) (*tls.Certificate, bool) {
	pair := authority.PairOf(secret)
	cert, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		r.config.Log.Error("a Secret holds no certificate and key that belong together; what was there before stays in use", "secret", keyOf(secret).String(), "error", err)
		return nil, false
	}
	return &cert, true
}

func keyOf(secret *corev1.Secret) types.NamespacedName {
	return types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}
}

// Follow watches the Secrets that are not marked, and no others any more. It returns when the new ones
// are there, or are known not to be.
func (r *Ring) Follow(ctx context.Context, secrets map[types.NamespacedName]struct{}) {
	var fresh []<-chan struct{}
	r.mu.Lock()
	for key, n := range r.named {
		if _, still := secrets[key]; !still {
			n.stop()
			delete(r.named, key)
		}
	}
	for key := range secrets {
		if r.marked[key] == nil && r.named[key] == nil {
			fresh = append(fresh, r.watch(ctx, key))
		}
	}
	r.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	timer := time.NewTimer(firstPatience)
	defer timer.Stop()
	for _, synced := range fresh {
		select {
		case <-synced:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// watch follows one Secret until it is stopped; mu is held. The channel is closed after the first
// look.
func (r *Ring) watch(ctx context.Context, key types.NamespacedName) <-chan struct{} {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	n := &named{stop: stop}
	r.named[key] = n
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, key.Name).String()
	secrets := r.config.Client.CoreV1().Secrets(key.Namespace)
	set := func(o any) {
		secret, ok := o.(*corev1.Secret)
		if !ok || secret.Labels[netapi.CertificateUIDLabelKey] != "" {
			return // it comes by the other watch
		}
		if cert, ok := r.read(secret); ok {
			r.mu.Lock()
			defer r.mu.Unlock()
			n.cert = cert
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = only
				return secrets.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = only
				return secrets.Watch(ctx, o)
			},
		}, r.config.Client),
		ObjectType: &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: set, UpdateFunc: func(_, o any) { set(o) },
			DeleteFunc: func(any) {
				r.mu.Lock()
				defer r.mu.Unlock()
				n.cert = nil
			},
		},
	})
	go informer.RunWithContext(ctx)
	return informer.HasSyncedChecker().Done()
}

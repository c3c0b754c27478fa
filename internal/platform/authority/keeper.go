package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// CertificateKey and its sisters are where a Secret has a pair and who signed it.
const (
	CertificateKey = corev1.TLSCertKey
	PrivateKey     = corev1.TLSPrivateKeyKey
	AuthorityKey   = "ca.crt"
)

// KeeperConfig is what a Keeper works with.
type KeeperConfig struct {
	Client kubernetes.Interface
	// Secret is where the authority rests.
	Secret types.NamespacedName
	// Labels mark the Secret, for whoever watches it.
	Labels map[string]string
	Log    *slog.Logger
}

// A Keeper has the authority that rests in a Secret. Users may put another one there; when the
// Secret is deleted, a new one is made. Its methods are safe for concurrent use.
type Keeper struct {
	config  KeeperConfig
	current atomic.Pointer[Authority]

	mu   sync.Mutex // guards what follows, and is held while the authority changes
	subs []func()
}

// Open reads the authority, or makes it. One that cannot be read is left where it is, for its user to
// look at, and stood in for.
func Open(ctx context.Context, c KeeperConfig) (*Keeper, error) {
	k := &Keeper{config: c}
	secret, err := c.Client.CoreV1().Secrets(c.Secret.Namespace).Get(ctx, c.Secret.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		secret, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	if err := k.Observe(ctx, secret); err != nil {
		return nil, err
	}
	return k, nil
}

// Current is the authority in force.
func (k *Keeper) Current() *Authority { return k.current.Load() }

// Subscribe has fn called after each change of the authority. It must not block.
func (k *Keeper) Subscribe(fn func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.subs = append(k.subs, fn)
}

// Is tells whether a Secret is the authority's.
func (k *Keeper) Is(key types.NamespacedName) bool { return key == k.config.Secret }

// Observe takes over what the Secret holds now; nil says that it is gone.
func (k *Keeper) Observe(ctx context.Context, secret *corev1.Secret) error {
	k.mu.Lock()
	changed, err := k.adopt(ctx, secret)
	subs := k.subs
	k.mu.Unlock()
	if changed {
		for _, fn := range subs {
			fn()
		}
	}
	return err
}

// adopt is Observe with mu held.
func (k *Keeper) adopt(ctx context.Context, secret *corev1.Secret) (changed bool, err error) {
	now, before := time.Now(), k.current.Load()
	if secret == nil {
		return k.replace(ctx, nil, now)
	}
	pair := PairOf(secret)
	if before != nil && string(before.pair.Certificate) == string(pair.Certificate) {
		return false, nil
	}
	next, err := Load(pair, now)
	if errors.Is(err, ErrOld) {
		return k.replace(ctx, secret, now)
	}
	if err == nil {
		k.current.Store(next)
		return true, nil
	}
	k.config.Log.Error("the certificate authority in the cluster cannot be used; delete its Secret to have one made", "secret", k.config.Secret.String(), "error", err)
	if before != nil {
		return false, nil
	}
	next, err = New(k.config.Secret.Name, now)
	k.current.Store(next)
	return true, err
}

// replace makes an authority and writes it, over old if that is not nil.
func (k *Keeper) replace(ctx context.Context, old *corev1.Secret, now time.Time) (bool, error) {
	next, err := New("ebb "+k.config.Secret.Namespace+" "+now.UTC().Format(time.DateOnly), now)
	if err != nil {
		return false, err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: k.config.Secret.Name, Namespace: k.config.Secret.Namespace, Labels: k.config.Labels},
		Type:       corev1.SecretTypeTLS,
		Data:       next.pair.Data(next),
	}
	secrets := k.config.Client.CoreV1().Secrets(secret.Namespace)
	if old == nil {
		_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
	} else {
		secret.ResourceVersion = old.ResourceVersion
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		return false, nil // somebody put one there; it is observed in turn
	}
	if err != nil {
		return false, fmt.Errorf("writing the certificate authority: %w", err)
	}
	k.current.Store(next)
	return true, nil
}

// PairOf reads a pair out of a Secret.
func PairOf(secret *corev1.Secret) Pair {
	return Pair{Certificate: secret.Data[CertificateKey], Key: secret.Data[PrivateKey]}
}

// Data is a Secret's, with who signed the pair.
func (p Pair) Data(by *Authority) map[string][]byte {
	return map[string][]byte{CertificateKey: p.Certificate, PrivateKey: p.Key, AuthorityKey: by.PEM()}
}

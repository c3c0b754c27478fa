package revision

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/deployment"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/platform/image"
)

const (
	// patience is how long a reconcile waits for digests before it goes on without: a local registry
	// answers well within, which spares a status that nobody would read.
	patience = 100 * time.Millisecond
	// resolveWorkers bounds the registries asked at the same time.
	resolveWorkers = 16
	firstRetry     = time.Second
	lastRetry      = 5 * time.Minute
)

// digests is how far the look-up of a Revision's images has come.
type digests struct {
	done                       bool
	containers, initContainers []servingv1.ContainerStatus
	err                        error
}

// A resolver looks up image digests in the background and asks for a reconcile when it knows. A
// failure is told at once and the look-up repeated, ever more slowly, until it succeeds or the
// Revision is forgotten.
type resolver struct {
	images controller.Images
	reader client.Reader // for pull secrets, past the cache
	fire   func(types.NamespacedName)
	log    *slog.Logger
	slots  chan struct{}
	// config is looked at before each attempt: a registry put on the skip list ends the failures.
	config func() *deployment.Config

	mu      sync.Mutex // guards results
	results map[types.NamespacedName]*lookup
}

// lookup is one Revision's running or finished look-up.
type lookup struct {
	digests
	uid    types.UID
	cancel context.CancelFunc
	tried  chan struct{} // closed after the first attempt
}

func newResolver(c controller.Config, fire func(types.NamespacedName)) *resolver {
	return &resolver{
		images: c.Images, reader: c.Manager.GetAPIReader(), fire: fire, log: c.Log,
		slots:   make(chan struct{}, resolveWorkers),
		config:  func() *deployment.Config { return c.Settings.Current().Deployment },
		results: map[types.NamespacedName]*lookup{},
	}
}

// Resolve returns what is known of the Revision's images. It starts the look-up if there is none, and
// waits a moment for it.
func (r *resolver) Resolve(ctx context.Context, rev *servingv1.Revision) digests {
	l, started := r.lookup(ctx, rev)
	if started {
		select {
		case <-l.tried:
		case <-time.After(patience):
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return l.digests
}

// lookup returns the Revision's look-up, and whether it was started now.
func (r *resolver) lookup(ctx context.Context, rev *servingv1.Revision) (*lookup, bool) {
	key := client.ObjectKeyFromObject(rev)
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.results[key]; l != nil {
		if l.uid == rev.UID {
			return l, false
		}
		l.cancel() // another Revision had this name before
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a look-up outlives the reconcile that began it
	l := &lookup{uid: rev.UID, cancel: cancel, tried: make(chan struct{})}
	r.results[key] = l
	go r.run(ctx, l, rev.DeepCopy())
	return l, true
}

// Forget ends the Revision's look-up and drops its result.
func (r *resolver) Forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.results[key]; l != nil {
		l.cancel()
		delete(r.results, key)
	}
}

func (r *resolver) run(ctx context.Context, l *lookup, rev *servingv1.Revision) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		result := r.attempt(ctx, rev)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		l.digests = result
		r.mu.Unlock()
		if wait == firstRetry {
			close(l.tried)
		}
		r.fire(client.ObjectKeyFromObject(rev))
		if result.err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// attempt looks all images up once.
func (r *resolver) attempt(ctx context.Context, rev *servingv1.Revision) digests {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return digests{}
	}
	d := r.config()
	ctx, cancel := context.WithTimeout(ctx, d.DigestResolutionTimeout)
	defer cancel()
	one := &resolution{resolver: r, rev: rev, skip: d, known: map[string]string{}}
	init, err := one.all(ctx, rev.Spec.InitContainers)
	if err != nil {
		return digests{err: err}
	}
	containers, err := one.all(ctx, rev.Spec.Containers)
	if err != nil {
		return digests{err: err}
	}
	return digests{done: true, containers: containers, initContainers: init}
}

// resolution is one attempt; images used twice are asked for once, secrets are read once.
type resolution struct {
	*resolver
	rev      *servingv1.Revision
	skip     *deployment.Config
	known    map[string]string
	keychain authn.Keychain
	asked    bool
}

func (o *resolution) all(ctx context.Context, containers []corev1.Container) ([]servingv1.ContainerStatus, error) {
	var out []servingv1.ContainerStatus
	for i := range containers {
		c := &containers[i]
		digest, err := o.one(ctx, c.Image)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", servingv1.RevisionContainerMissingMessage(c.Image, "failed to resolve image to digest"), err)
		}
		out = append(out, servingv1.ContainerStatus{Name: c.Name, ImageDigest: digest})
	}
	return out, nil
}

// one resolves an image; empty means that it stays as it is, its registry being on the skip list.
func (o *resolution) one(ctx context.Context, ref string) (string, error) {
	if d, ok := o.known[ref]; ok {
		return d, nil
	}
	if strings.Contains(ref, "@") {
		if _, err := name.NewDigest(ref, name.WeakValidation); err == nil {
			return ref, nil
		}
	}
	tag, err := name.NewTag(ref, name.WeakValidation)
	if err != nil {
		return "", err
	}
	if o.skip.RegistriesSkippingTagResolving.Has(tag.RegistryStr()) {
		return "", nil
	}
	if err := o.secrets(ctx); err != nil {
		return "", err
	}
	digest, err := o.images.Digest(ctx, ref, o.keychain)
	if err != nil {
		return "", err
	}
	o.known[ref] = digest.String()
	return digest.String(), nil
}

// secrets reads the pull secrets of the Revision and of its ServiceAccount. One that is missing is
// left out, as the node does.
func (o *resolution) secrets(ctx context.Context) error {
	if o.asked {
		return nil
	}
	refs := append([]corev1.LocalObjectReference(nil), o.rev.Spec.ImagePullSecrets...)
	account := o.rev.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	var sa corev1.ServiceAccount
	switch err := o.reader.Get(ctx, types.NamespacedName{Namespace: o.rev.Namespace, Name: account}, &sa); {
	case err == nil:
		refs = append(refs, sa.ImagePullSecrets...)
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("getting service account %s: %w", account, err)
	}
	var secrets []corev1.Secret
	for _, ref := range refs {
		var secret corev1.Secret
		switch err := o.reader.Get(ctx, types.NamespacedName{Namespace: o.rev.Namespace, Name: ref.Name}, &secret); {
		case err == nil:
			secrets = append(secrets, secret)
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("getting pull secret %s: %w", ref.Name, err)
		}
	}
	keychain, err := image.PullSecrets(secrets)
	if err != nil {
		return fmt.Errorf("reading pull secrets: %w", err)
	}
	o.keychain, o.asked = keychain, true
	return nil
}

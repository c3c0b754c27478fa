// Package credential finds what triggers sign in with: the parameters of TriggerAuthentications and
// ClusterTriggerAuthentications, the environment of the target's container, and the identity of pods.
// The semantics are KEDA's.
//
// What lies in the cluster is read and followed object by object, never as a list of all Secrets. What
// lies elsewhere is the business of Safes: implementations live in folders of their own, all pass
// credentialtest.Run, and are listed in all.
package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"ebb.dev/ebb/internal/platform/kube/object"
)

// DefaultNamespace is where ClusterTriggerAuthentications' objects are unless said otherwise: where
// KEDA would be.
const DefaultNamespace = "keda"

// Options are what the one who runs ebb decides.
type Options struct {
	// ClusterObjectNamespace is where ClusterTriggerAuthentications' Secrets, ConfigMaps and service
	// accounts are (KEDA_CLUSTER_OBJECT_NAMESPACE); DefaultNamespace when empty.
	ClusterObjectNamespace string
	// RestrictSecretAccess has Secrets be read in that namespace only (KEDA_RESTRICT_SECRET_ACCESS).
	RestrictSecretAccess bool
	// Files is the folder that filePath is relative to (--filepath-auth-root-path); without one
	// filePath is refused.
	Files string
	// Tokens is the policy of service account tokens.
	Tokens TokenPolicy
	// Safes are the places outside of the cluster that are known.
	Safes []Safe
	Log   *slog.Logger
}

// A Request is a trigger in need of credentials.
type Request struct {
	// Namespace is the trigger's.
	Namespace string
	// Ref names a TriggerAuthentication or ClusterTriggerAuthentication; may be nil.
	Ref *kedav1alpha1.AuthenticationRef
	// Pod is the target's template; nil if it has none.
	Pod *corev1.PodTemplateSpec
	// Container names the one whose environment is taken; the first when empty.
	Container string
}

// Resolved is what a trigger signs in with.
type Resolved struct {
	// Params are the authentication's parameters.
	Params map[string]string
	// Env is the environment of the container.
	Env map[string]string
	// Identity is the pod identity; its provider is "none" by default.
	Identity kedav1alpha1.AuthPodIdentity
	// Expires is when to resolve again, some time before anything of it ceases to be valid; zero if
	// nothing does.
	Expires time.Time
	// Missing tells of objects and keys that are not there, whose parameters are left empty as with
	// KEDA: a trigger that can do without them works.
	Missing []error
}

// Explain joins what is missing to the error of a trigger that did not work.
func (r *Resolved) Explain(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(append([]error{err}, r.Missing...)...)
}

// A Resolver resolves Requests. Its methods may be called from many goroutines.
type Resolver struct {
	options Options
	objects *object.Store
	tokens  *tokens
	memo    memo
}

// New returns a Resolver that reads objects from a store and has tokens made by the core API.
func New(objects *object.Store, core corev1client.ServiceAccountsGetter, o Options) (*Resolver, error) {
	if err := o.Tokens.validate(); err != nil {
		return nil, err
	}
	if o.ClusterObjectNamespace == "" {
		o.ClusterObjectNamespace = DefaultNamespace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Resolver{
		options: o, objects: objects,
		tokens: newTokens(core, o.Tokens, o.Log),
		memo:   memo{have: map[memoKey]*remembered{}},
	}, nil
}

// Namespace is where ClusterTriggerAuthentications' objects are.
func (r *Resolver) Namespace() string { return r.options.ClusterObjectNamespace }

// Resolve finds what a trigger signs in with. An error means that it cannot be told now: something did
// not answer, or refused, or the request is wrong. It names objects and keys, never values.
func (r *Resolver) Resolve(ctx context.Context, q Request) (Resolved, error) {
	x := &resolution{r: r, q: q, out: Resolved{
		Params: map[string]string{}, Env: map[string]string{},
		Identity: kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderNone},
	}}
	if q.Pod != nil {
		env, err := x.environment(ctx, q.Container)
		if err != nil {
			return Resolved{}, err
		}
		x.out.Env = env
	}
	if err := x.authenticate(ctx); err != nil {
		return Resolved{}, err
	}
	if q.Pod != nil {
		if err := x.identify(ctx); err != nil {
			return Resolved{}, err
		}
	}
	return x.out, nil
}

// resolution is a Request being resolved.
type resolution struct {
	r    *Resolver
	q    Request
	auth authentication
	out  Resolved
}

// authenticate gathers the parameters of the authentication that the request names, in KEDA's order:
// what comes later wins.
func (x *resolution) authenticate(ctx context.Context) error {
	if x.q.Ref == nil || x.q.Ref.Name == "" || x.q.Namespace == "" {
		return nil
	}
	auth, err := x.r.authentication(ctx, x.q)
	if _, err := x.optional("", err); err != nil {
		return err
	}
	if auth.spec == nil {
		return nil // it is not there
	}
	x.auth = auth
	if auth.spec.PodIdentity != nil {
		x.out.Identity = *auth.spec.PodIdentity
	}
	if auth.spec.FilePath != "" {
		return x.file()
	}
	for _, step := range []func(context.Context) error{
		x.containers, x.configMaps, x.secrets, x.safes, x.boundTokens, x.oauth2, x.servicePrincipal,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("resolving %s: %w", auth, err)
		}
	}
	return nil
}

func (x *resolution) missing(err error) { x.out.Missing = append(x.out.Missing, err) }

// expire has the whole be resolved again at t; zero: not because of this.
func (x *resolution) expire(t time.Time) {
	if !t.IsZero() && (x.out.Expires.IsZero() || t.Before(x.out.Expires)) {
		x.out.Expires = t
	}
}

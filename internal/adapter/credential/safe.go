package credential

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/types"
)

// How long a safe may take, how long its answer serves others that ask the same, and how often one is
// asked again at least, as nothing tells of changes there.
const (
	safePatience = 30 * time.Second
	safeFresh    = 5 * time.Second
	safeAgain    = 10 * time.Minute
)

// ErrMissing says that a safe has no such secret, or that it has no such key.
var ErrMissing = errors.New("there is no such secret or key")

// A Safe keeps secrets outside of the cluster.
type Safe interface {
	// Name is how people call it.
	Name() string
	// Asked tells whether an authentication takes parameters from it.
	Asked(spec *kedav1alpha1.TriggerAuthenticationSpec) bool
	// Signs are the Secrets that an authentication signs in to it with.
	Signs(spec *kedav1alpha1.TriggerAuthenticationSpec) []kedav1alpha1.SecretKeyRef
	// Read gets all that an authentication asks of it. A secret or key that is not there is told in
	// Answer.Missing; an error, which holds no values, means that the safe cannot tell.
	Read(ctx context.Context, q Question) (Answer, error)
}

// A Question is what an authentication asks of a Safe.
type Question struct {
	Spec *kedav1alpha1.TriggerAuthenticationSpec
	// Secret reads one of the cluster's that Signs names.
	Secret func(ctx context.Context, ref kedav1alpha1.SecretKeyRef) (string, error)
	// Token has one made for a service account of the trigger's namespace.
	Token func(ctx context.Context, serviceAccount string) (string, error)
	// Role is the AWS role of the target's service account.
	Role func(ctx context.Context) (string, error)
}

// An Answer is what a Safe has.
type Answer struct {
	// Params are values by parameter.
	Params map[string]string
	// Missing tells what is not there; each wraps ErrMissing.
	Missing []error
	// Expires is when to ask again, some time before a value ceases to be valid; zero for no such end.
	Expires time.Time
}

// safes asks all that the authentication takes parameters from.
func (x *resolution) safes(ctx context.Context) error {
	for i, s := range x.r.options.Safes {
		if !s.Asked(x.auth.spec) {
			continue
		}
		a, err := x.ask(ctx, i, s)
		if err != nil {
			return fmt.Errorf("reading from %s: %w", s.Name(), err)
		}
		maps.Copy(x.out.Params, a.Params)
		for _, err := range a.Missing {
			x.missing(fmt.Errorf("reading from %s for %s: %w", s.Name(), x.auth, err))
		}
		x.expire(a.Expires)
		x.expire(time.Now().Add(safeAgain))
	}
	return x.unknownSafe()
}

// unknownSafe refuses what no safe was given for.
func (x *resolution) unknownSafe() error {
	spec := x.auth.spec
	for name, wanted := range map[string]bool{
		"hashiCorpVault":   spec.HashiCorpVault != nil && len(spec.HashiCorpVault.Secrets) > 0,
		"azureKeyVault":    spec.AzureKeyVault != nil && len(spec.AzureKeyVault.Secrets) > 0,
		"gcpSecretManager": spec.GCPSecretManager != nil && len(spec.GCPSecretManager.Secrets) > 0,
		"awsSecretManager": spec.AwsSecretManager != nil && len(spec.AwsSecretManager.Secrets) > 0,
	} {
		if !wanted {
			continue
		}
		known := false
		for _, s := range x.r.options.Safes {
			known = known || s.Name() == name
		}
		if !known {
			return fmt.Errorf("%s is not part of this ebb: use a Secret", name)
		}
	}
	return nil
}

// memo has the latest answers, so that many triggers with one authentication ask once.
type memo struct {
	flights singleflight.Group

	mu   sync.Mutex // guards have
	have map[memoKey]*remembered
}

type memoKey struct {
	safe                               int
	auth, version, namespace, identity string
}

// remembered is an answer and the Secrets that it was asked with.
type remembered struct {
	answer Answer
	until  time.Time
	signs  map[kedav1alpha1.SecretKeyRef]string
}

// ask gets an answer, that of another trigger if it asked the same with the same Secrets just now.
func (x *resolution) ask(ctx context.Context, i int, s Safe) (Answer, error) {
	m := &x.r.memo
	key := memoKey{safe: i, auth: x.auth.String(), version: x.auth.version, namespace: x.q.Namespace, identity: serviceAccount(x.q)}
	if have := m.find(key); have != nil && x.still(ctx, have.signs) {
		return have.answer, nil
	}
	// Whoever comes first must not take the others along when its context ends.
	done := m.flights.DoChan(fmt.Sprint(key), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), safePatience)
		defer cancel()
		have := &remembered{signs: map[kedav1alpha1.SecretKeyRef]string{}}
		var err error
		if have.answer, err = s.Read(ctx, x.question(have.signs)); err != nil {
			return nil, err
		}
		have.until = time.Now().Add(safeFresh)
		m.put(key, have)
		return have.answer, nil
	})
	select {
	case r := <-done:
		a, _ := r.Val.(Answer) // none with an error
		return a, r.Err
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

// question is what a safe is asked; signs takes the Secrets it was asked with.
func (x *resolution) question(signs map[kedav1alpha1.SecretKeyRef]string) Question {
	return Question{
		Spec: x.auth.spec,
		Secret: func(ctx context.Context, ref kedav1alpha1.SecretKeyRef) (string, error) {
			value, err := x.secret(ctx, ref)
			if err == nil {
				signs[ref] = value
			}
			return value, err
		},
		Token: func(ctx context.Context, account string) (string, error) {
			text, _, err := x.r.tokens.get(ctx, types.NamespacedName{Namespace: x.q.Namespace, Name: account})
			return text, err
		},
		Role: func(ctx context.Context) (string, error) { return x.annotatedRole(ctx, true) },
	}
}

// still tells whether Secrets are what they were.
func (x *resolution) still(ctx context.Context, signs map[kedav1alpha1.SecretKeyRef]string) bool {
	for ref, before := range signs {
		if now, err := x.secret(ctx, ref); err != nil || now != before {
			return false
		}
	}
	return true
}

func (m *memo) find(key memoKey) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.have[key]; have != nil && time.Now().Before(have.until) {
		return have
	}
	return nil
}

func (m *memo) put(key memoKey, have *remembered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for k, old := range m.have {
		if now.After(old.until) {
			delete(m.have, k)
		}
	}
	m.have[key] = have
}

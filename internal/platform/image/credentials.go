package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/kubernetes"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
)

const (
	// refusalAge is how long a registry's no is repeated without asking again: long enough to calm a
	// crowd of pods that want the same missing image, short enough that nobody waits for it.
	refusalAge = 2 * time.Second
	// refusalLimit bounds how many are kept.
	refusalLimit = 1024
)

// PullSecrets makes a keychain of a pod's pull secrets, types kubernetes.io/dockerconfigjson and
// kubernetes.io/dockercfg; secrets of other types are passed over, as the kubelet does.
func PullSecrets(secrets []corev1.Secret) (authn.Keychain, error) {
	chains := make([]authn.Keychain, 0, len(secrets))
	for i := range secrets {
		// Reading a secret that is in memory asks nobody, whatever the signature says.
		chain, err := kubernetes.NewFromPullSecrets(context.Background(), secrets[i:i+1]) //nolint:forbidigo // see above
		if err != nil {
			return nil, fmt.Errorf("reading pull secret %s/%s: %w", secrets[i].Namespace, secrets[i].Name, err)
		}
		chains = append(chains, chain)
	}
	return authn.NewMultiKeychain(chains...), nil
}

// Key tells pulls apart that may not share an answer: by reference and by the credentials that kc and
// this machine have for it. It holds no secret.
func (s *Source) Key(ctx context.Context, reference string, kc authn.Keychain) (string, error) {
	ref, err := Parse(reference)
	if err != nil {
		return "", err
	}
	_, key, err := s.credentials(ctx, ref, kc)
	return key, err
}

// credentials picks what to show the registry, and a key that tells references and credentials
// apart without holding any secret.
func (s *Source) credentials(ctx context.Context, ref name.Reference, kc authn.Keychain) (authn.Authenticator, string, error) {
	var chain authn.Keychain = authn.DefaultKeychain
	if kc != nil {
		chain = authn.NewMultiKeychain(kc, authn.DefaultKeychain)
	}
	auth, err := authn.Resolve(ctx, chain, ref.Context())
	if err != nil {
		return nil, "", fmt.Errorf("reading credentials for %s: %w", ref.Context().RegistryStr(), err)
	}
	config, err := authn.Authorization(ctx, auth)
	if err != nil {
		return nil, "", fmt.Errorf("reading credentials for %s: %w", ref.Context().RegistryStr(), err)
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, "", fmt.Errorf("reading credentials for %s: %w", ref.Context().RegistryStr(), err)
	}
	sum := sha256.Sum256(text)
	return auth, ref.Name() + " " + hex.EncodeToString(sum[:]), nil
}

// refusals remembers errors for a moment. The zero value is ready.
type refusals struct {
	mu    sync.Mutex
	byKey map[string]refusal
}

type refusal struct {
	err   error
	until time.Time
}

func (r *refusals) check(key string, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.byKey[key]; ok && now.Before(known.until) {
		return known.err
	}
	return nil
}

// note keeps an answer of the registry; a caller that gave up says nothing about the registry.
func (r *refusals) note(key string, err error, now time.Time) {
	if !fromRegistry(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKey == nil || len(r.byKey) >= refusalLimit {
		r.byKey = map[string]refusal{}
	}
	r.byKey[key] = refusal{err: err, until: now.Add(refusalAge)}
}

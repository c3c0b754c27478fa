package vault

import (
	"context"
	"fmt"
	"strings"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
)

// group is what is read at once: dynamic secrets are others each time.
type group struct {
	kind kedav1alpha1.VaultSecretType
	path string
	pki  kedav1alpha1.VaultPkiData
}

// readAll reads each path once and takes all parameters from it.
func (s *Safe) readAll(ctx context.Context, client *vaultapi.Client, v *kedav1alpha1.HashiCorpVault, a *credential.Answer) error {
	have := map[group]*vaultapi.Secret{}
	for i := range v.Secrets {
		want := &v.Secrets[i]
		g := group{want.Type, want.Path, want.PkiData}
		if _, known := have[g]; !known {
			secret, err := read(ctx, client, g)
			if err != nil {
				return err
			}
			have[g] = secret
			if secret != nil && secret.LeaseID != "" {
				expire(a, time.Duration(secret.LeaseDuration)*time.Second)
			}
		}
		value, err := valueOf(have[g], want)
		if err != nil {
			a.Missing = append(a.Missing, err)
		}
		a.Params[want.Parameter] = value
	}
	return nil
}

// read reads a path, or has a certificate made at it; nil if there is nothing.
func read(ctx context.Context, client *vaultapi.Client, g group) (*vaultapi.Secret, error) {
	switch g.kind {
	case kedav1alpha1.VaultSecretTypePki:
		secret, err := client.Logical().WriteWithContext(ctx, g.path, certificate(g.pki))
		if err != nil {
			return nil, fmt.Errorf("having a certificate made at %s: %w", g.path, err)
		}
		return secret, nil
	case kedav1alpha1.VaultSecretTypeGeneric, kedav1alpha1.VaultSecretTypeSecret, kedav1alpha1.VaultSecretTypeSecretV2:
		secret, err := client.Logical().ReadWithContext(ctx, g.path)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", g.path, err)
		}
		return secret, nil
	}
	return nil, fmt.Errorf("unsupported vault secret type %s", g.kind)
}

// certificate is what is asked of the PKI engine.
func certificate(p kedav1alpha1.VaultPkiData) map[string]any {
	out := map[string]any{}
	for name, value := range map[string]string{
		"common_name": p.CommonName, "alt_names": p.AltNames, "ip_sans": p.IPSans, "uri_sans": p.URISans,
		"other_sans": p.OtherSans, "ttl": p.TTL, "format": p.Format,
	} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

// valueOf takes a key from what was read. An error says that it is not there, or no text.
func valueOf(secret *vaultapi.Secret, want *kedav1alpha1.VaultSecret) (string, error) {
	if secret == nil {
		return "", fmt.Errorf("%s: %w", want.Path, credential.ErrMissing)
	}
	data := secret.Data
	inner, wrapped := data["data"].(map[string]any)
	_, second := data["data"]
	if want.Type == kedav1alpha1.VaultSecretTypeSecretV2 || want.Type == kedav1alpha1.VaultSecretTypeGeneric && second {
		data = inner
		if !wrapped { // deleted, or not of version 2
			return "", fmt.Errorf("%s: %w", want.Path, credential.ErrMissing)
		}
	}
	value, there := data[want.Key]
	if !there {
		return "", fmt.Errorf("%s, key %q: %w", want.Path, want.Key, credential.ErrMissing)
	}
	if want.Type == kedav1alpha1.VaultSecretTypePki && want.Key == "ca_chain" {
		return chain(value, want)
	}
	text, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("%s, key %q is no text: %w", want.Path, want.Key, credential.ErrMissing)
	}
	return text, nil
}

// chain joins certificates.
func chain(value any, want *kedav1alpha1.VaultSecret) (string, error) {
	all, ok := value.([]any)
	texts := make([]string, 0, len(all))
	for _, one := range all {
		text, isText := one.(string)
		ok = ok && isText
		texts = append(texts, text)
	}
	if !ok {
		return "", fmt.Errorf("%s, key %q is no list of certificates: %w", want.Path, want.Key, credential.ErrMissing)
	}
	return strings.Join(texts, "\n"), nil
}

// Package vault reads secrets from HashiCorp Vault: version 1 and 2 of its key-value engine, dynamic
// secrets, and certificates of its PKI engine.
package vault

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
)

// The files that Kubernetes' tokens are in, by upstream's conventions, and how large one may be.
const (
	projectedAt = "/var/run/secrets/keda-vault/token"
	legacyAt    = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	maxToken    = 64 << 10
)

// Options are what the one who runs ebb decides.
type Options struct {
	// Dial opens connections; Go's way when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS has the authorities that are trusted unless VAULT_CACERT says otherwise. May be nil.
	TLS *tls.Config
	// Tokens is the policy that tokens from files are checked by.
	Tokens credential.TokenPolicy
	// TokenFile has ebb's own token for Vault; the place that KEDA has it at when empty.
	TokenFile string
	// Filter says which servers may be asked.
	Filter Filter
	Log    *slog.Logger
}

// Safe is Vault.
type Safe struct{ options Options }

// New returns Vault.
func New(o Options) (*Safe, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Safe{o}, o.Filter.validate()
}

// Name implements credential.Safe.
func (*Safe) Name() string { return "hashiCorpVault" }

// Asked implements credential.Safe.
func (*Safe) Asked(spec *kedav1alpha1.TriggerAuthenticationSpec) bool {
	return spec.HashiCorpVault != nil && len(spec.HashiCorpVault.Secrets) > 0
}

// Signs implements credential.Safe: tokens are in the spec itself.
func (*Safe) Signs(*kedav1alpha1.TriggerAuthenticationSpec) []kedav1alpha1.SecretKeyRef { return nil }

// Read implements credential.Safe.
func (s *Safe) Read(ctx context.Context, q credential.Question) (credential.Answer, error) {
	v := q.Spec.HashiCorpVault
	if err := s.options.Filter.check(v.Address, s.options.Log); err != nil {
		return credential.Answer{}, err
	}
	client, closeIdle, err := s.client(v)
	if err != nil {
		return credential.Answer{}, err
	}
	defer closeIdle()
	if err := s.signIn(ctx, client, q); err != nil {
		return credential.Answer{}, err
	}
	a := credential.Answer{Params: map[string]string{}}
	life, err := s.own(ctx, client)
	if err != nil {
		return credential.Answer{}, err
	}
	expire(&a, life)
	return a, s.readAll(ctx, client, v, &a)
}

// client returns one for the server, and what lets go of its connections.
func (s *Safe) client(v *kedav1alpha1.HashiCorpVault) (*vaultapi.Client, func(), error) {
	config := vaultapi.DefaultConfig() // with what the environment says, as upstream
	if config.Error != nil {
		return nil, nil, fmt.Errorf("reading Vault's settings from the environment: %w", config.Error)
	}
	if transport, ok := config.HttpClient.Transport.(*http.Transport); ok {
		if s.options.Dial != nil {
			transport.DialContext = s.options.Dial
		}
		if t := transport.TLSClientConfig; t != nil && t.RootCAs == nil && s.options.TLS != nil {
			t.RootCAs = s.options.TLS.RootCAs
		}
	}
	config.MaxRetries = 0 // whoever asks tries again
	client, err := vaultapi.NewClient(config)
	if err != nil {
		return nil, nil, fmt.Errorf("making a client of Vault: %w", err)
	}
	if err := client.SetAddress(v.Address); err != nil {
		return nil, nil, fmt.Errorf("reading the address of Vault: %w", err)
	}
	if v.Namespace != "" {
		client.SetNamespace(v.Namespace)
	}
	return client, config.HttpClient.CloseIdleConnections, nil
}

// signIn gives the client a token.
func (s *Safe) signIn(ctx context.Context, client *vaultapi.Client, q credential.Question) error {
	v := q.Spec.HashiCorpVault
	switch v.Authentication {
	case kedav1alpha1.VaultAuthenticationToken:
		switch {
		case client.Token() != "": // VAULT_TOKEN
		case v.Credential != nil && v.Credential.Token != "":
			client.SetToken(v.Credential.Token)
		default:
			return errors.New("could not get Vault token: set credential.token or VAULT_TOKEN")
		}
		return nil
	case kedav1alpha1.VaultAuthenticationKubernetes:
		return s.logIn(ctx, client, q)
	}
	return fmt.Errorf("vault auth method %s is not supported", v.Authentication)
}

// logIn gets a token for one of Kubernetes'.
func (s *Safe) logIn(ctx context.Context, client *vaultapi.Client, q credential.Question) error {
	v := q.Spec.HashiCorpVault
	if v.Mount == "" {
		return errors.New("auth mount not in config")
	}
	if v.Role == "" {
		return errors.New("k8s role not in config")
	}
	jwt, err := s.kubernetesToken(ctx, q)
	if err != nil {
		return err
	}
	answer, err := client.Logical().WriteWithContext(ctx, "auth/"+v.Mount+"/login", map[string]any{"jwt": jwt, "role": v.Role})
	if err != nil {
		return fmt.Errorf("logging in to Vault at auth/%s: %w", v.Mount, err)
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return errors.New("vault Kubernetes login returned no client token")
	}
	client.SetToken(answer.Auth.ClientToken)
	return nil
}

// kubernetesToken has a token made, or reads one from a file.
func (s *Safe) kubernetesToken(ctx context.Context, q credential.Question) (string, error) {
	c, policy := q.Spec.HashiCorpVault.Credential, s.options.Tokens
	path := cmp.Or(s.options.TokenFile, projectedAt)
	if policy.Legacy {
		path = legacyAt
	}
	if c != nil {
		if c.ServiceAccountName != "" {
			return q.Token(ctx, c.ServiceAccountName)
		}
		path = c.ServiceAccount
	}
	if path == "" {
		return "", errors.New("k8s SA file not in config or serviceAccountName not supplied")
	}
	approved := policy.Approved()
	if policy.Legacy {
		approved = nil
	} else if len(approved) == 0 {
		return "", errors.New("no approved service account token audiences; configure KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES")
	}
	text, err := readToken(path)
	if err != nil {
		return "", err
	}
	if err := credential.CheckToken(text, approved, time.Now()); err != nil {
		return "", fmt.Errorf("the token in %s: %w", path, err)
	}
	return text, nil
}

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("reading a service account's token: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("service account token path %s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading a service account's token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("reading a service account's token: %w", err)
	}
	if len(text) > maxToken {
		return "", fmt.Errorf("service account token file %s exceeds maximum size of %d bytes", path, maxToken)
	}
	return strings.TrimSpace(string(text)), nil
}

// own checks the client's token, has it live on if it can, and returns for how long it does; zero for
// ever. What was read with it is valid no longer than it.
func (s *Safe) own(ctx context.Context, client *vaultapi.Client) (time.Duration, error) {
	self, err := client.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("looking up Vault's token: %w", err)
	}
	if self == nil {
		return 0, errors.New("looking up Vault's token: it tells nothing")
	}
	renewable, err := self.TokenIsRenewable()
	if err == nil && renewable {
		renewed, err := client.Auth().Token().RenewSelfWithContext(ctx, 0)
		if err == nil && renewed != nil && renewed.Auth != nil {
			return time.Duration(renewed.Auth.LeaseDuration) * time.Second, nil
		}
		s.options.Log.Debug("renewing Vault's token", "error", err)
	}
	life, err := self.TokenTTL()
	if err != nil {
		return 0, fmt.Errorf("looking up Vault's token: it does not tell how long it lives: %w", err)
	}
	return life, nil
}

// expire has a be asked for again after two thirds of a life; zero: it does not end.
func expire(a *credential.Answer, life time.Duration) {
	if life <= 0 {
		return
	}
	if at := time.Now().Add(life * 2 / 3); a.Expires.IsZero() || at.Before(a.Expires) {
		a.Expires = at
	}
}

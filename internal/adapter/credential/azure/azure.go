// Package azure reads secrets from Azure Key Vault, and gets tokens for pod identities of Azure's.
package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
)

// Options are what the one who runs ebb decides.
type Options struct {
	// Client sends requests; the SDK's own when nil.
	Client *http.Client
	// Disconnected says that login.microsoft.com cannot be asked which authorities there are.
	Disconnected bool
}

// Safe is Azure Key Vault.
type Safe struct {
	options Options

	mu        sync.Mutex // guards workloads
	workloads map[[3]string]azcore.TokenCredential
}

// New returns Azure Key Vault.
func New(o Options) *Safe {
	return &Safe{options: o, workloads: map[[3]string]azcore.TokenCredential{}}
}

// Name implements credential.Safe.
func (*Safe) Name() string { return "azureKeyVault" }

// Asked implements credential.Safe.
func (*Safe) Asked(spec *kedav1alpha1.TriggerAuthenticationSpec) bool {
	return spec.AzureKeyVault != nil && len(spec.AzureKeyVault.Secrets) > 0
}

// Signs implements credential.Safe.
func (*Safe) Signs(spec *kedav1alpha1.TriggerAuthenticationSpec) []kedav1alpha1.SecretKeyRef {
	v := spec.AzureKeyVault
	if provider(v) != kedav1alpha1.PodIdentityProviderNone || v.Credentials == nil || v.Credentials.ClientSecret == nil {
		return nil
	}
	return []kedav1alpha1.SecretKeyRef{v.Credentials.ClientSecret.ValueFrom.SecretKeyRef}
}

// provider is that of the pod identity that signs in.
func provider(v *kedav1alpha1.AzureKeyVault) kedav1alpha1.PodIdentityProvider {
	if v.PodIdentity == nil || v.PodIdentity.Provider == "" {
		return kedav1alpha1.PodIdentityProviderNone
	}
	return v.PodIdentity.Provider
}

// Read implements credential.Safe.
func (s *Safe) Read(ctx context.Context, q credential.Question) (credential.Answer, error) {
	v := q.Spec.AzureKeyVault
	options, disconnected, err := s.cloud(v.Cloud)
	if err != nil {
		return credential.Answer{}, err
	}
	signIn, err := s.signIn(ctx, q, options, disconnected)
	if err != nil {
		return credential.Answer{}, err
	}
	client, err := azsecrets.NewClient(v.VaultURI, signIn, &azsecrets.ClientOptions{
		ClientOptions: options, DisableChallengeResourceVerification: disconnected,
	})
	if err != nil {
		return credential.Answer{}, fmt.Errorf("making a client of %s: %w", v.VaultURI, err)
	}
	a := credential.Answer{Params: map[string]string{}}
	for _, want := range v.Secrets {
		got, err := client.GetSecret(ctx, want.Name, want.Version, nil)
		var answer *azcore.ResponseError
		switch {
		case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound, err == nil && got.Value == nil:
			a.Missing = append(a.Missing, fmt.Errorf("secret %s of %s: %w", want.Name, v.VaultURI, credential.ErrMissing))
			a.Params[want.Parameter] = ""
		case err != nil:
			return credential.Answer{}, fmt.Errorf("secret %s of %s: %w", want.Name, v.VaultURI, brief(err))
		default:
			a.Params[want.Parameter] = *got.Value
		}
	}
	return a, nil
}

// brief is an error of the SDK's without the answer that it quotes, which may be long.
func brief(err error) error {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return fmt.Errorf("answered %d %s", answer.StatusCode, answer.ErrorCode)
	}
	return err
}

// cloud tells how to reach a cloud, and whether it is one of its own.
func (s *Safe) cloud(c *kedav1alpha1.AzureKeyVaultCloudInfo) (azcore.ClientOptions, bool, error) {
	out := azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}} // whoever asks tries again
	if s.options.Client != nil {
		out.Transport = s.options.Client
	}
	if c == nil {
		return out, s.options.Disconnected, nil
	}
	switch strings.ToUpper(c.Type) {
	case "":
	case "AZUREPUBLICCLOUD":
		out.Cloud = cloud.AzurePublic
	case "AZUREUSGOVERNMENTCLOUD":
		out.Cloud = cloud.AzureGovernment
	case "AZURECHINACLOUD":
		out.Cloud = cloud.AzureChina
	case "PRIVATE":
		if c.ActiveDirectoryEndpoint == "" {
			return out, false, errors.New("activeDirectoryEndpoint must be provided for Private cloud type")
		}
		out.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: c.ActiveDirectoryEndpoint}
		return out, true, nil
	default:
		return out, false, fmt.Errorf("invalid cloud environment %s", c.Type)
	}
	return out, s.options.Disconnected, nil
}

// errClient says that there is nothing to sign in with; the text is upstream's.
var errClient = errors.New("clientID, tenantID and clientSecret are expected when not using a pod identity provider")

// signIn is how the authentication signs in.
func (s *Safe) signIn(ctx context.Context, q credential.Question, options azcore.ClientOptions, disconnected bool) (azcore.TokenCredential, error) {
	v := q.Spec.AzureKeyVault
	switch provider(v) {
	case kedav1alpha1.PodIdentityProviderNone:
	case kedav1alpha1.PodIdentityProviderAzureWorkload:
		return s.workload(*v.PodIdentity)
	default:
		return nil, fmt.Errorf("key vault does not support pod identity provider - %s", provider(v))
	}
	c := v.Credentials
	if c == nil || c.ClientSecret == nil {
		return nil, errClient
	}
	secret, err := q.Secret(ctx, c.ClientSecret.ValueFrom.SecretKeyRef)
	if err != nil {
		return nil, err
	}
	if c.ClientID == "" || c.TenantID == "" || secret == "" {
		return nil, errClient
	}
	out, err := azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: options, DisableInstanceDiscovery: disconnected,
	})
	if err != nil {
		return nil, fmt.Errorf("signing in to Azure: %w", err)
	}
	return out, nil
}

// workload signs in as ebb's own pod, or as the identity named in place of it. Its tokens are used
// until they are over.
func (s *Safe) workload(id kedav1alpha1.AuthPodIdentity) (azcore.TokenCredential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [3]string{id.GetIdentityID(), id.GetIdentityTenantID(), id.GetIdentityAuthorityHost()}
	if have := s.workloads[key]; have != nil {
		return have, nil
	}
	options, disconnected, err := s.cloud(nil)
	if err != nil {
		return nil, err
	}
	if host := key[2]; host != "" && key[1] != "" {
		options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: host}
	}
	made, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: options, ClientID: key[0], TenantID: key[1], DisableInstanceDiscovery: disconnected,
	})
	if err != nil {
		return nil, fmt.Errorf("signing in to Azure by ebb's pod: %w", err)
	}
	s.workloads[key] = made
	return made, nil
}

// Token gets a token for a pod identity of Azure's.
func (s *Safe) Token(ctx context.Context, id kedav1alpha1.AuthPodIdentity, scope string) (string, error) {
	from, err := s.workload(id)
	if err != nil {
		return "", err
	}
	token, err := from.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return "", fmt.Errorf("getting a token for %s: %w", scope, brief(err))
	}
	return token.Token, nil
}

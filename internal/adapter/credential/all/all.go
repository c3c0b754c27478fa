// Package all is the list of safes.
package all

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/adapter/credential/aws"
	"ebb.dev/ebb/internal/adapter/credential/azure"
	"ebb.dev/ebb/internal/adapter/credential/gcp"
	"ebb.dev/ebb/internal/adapter/credential/vault"
)

// Options are what safes are made with.
type Options struct {
	// Dial opens connections. It knows the cluster's names as well as the machine's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is what clients' configurations are cloned from; Go's defaults when nil.
	TLS *tls.Config
	// Tokens is the policy of service account tokens.
	Tokens credential.TokenPolicy
	// VaultTokenFile has ebb's own token for Vault; the place that KEDA has it at when empty.
	VaultTokenFile string
	// VaultFilter says which of Vault's servers may be asked.
	VaultFilter vault.Filter
	Log         *slog.Logger
}

// Known are the safes, and what else their clouds are good for.
type Known struct {
	// Safes are in the order in which KEDA asks them.
	Safes []credential.Safe
	// AzureToken gets a token for a pod identity of Azure's.
	AzureToken func(ctx context.Context, identity kedav1alpha1.AuthPodIdentity, scope string) (string, error)
}

// New makes all safes.
func New(o Options) (Known, error) {
	hashicorp, err := vault.New(vault.Options{
		Dial: o.Dial, TLS: o.TLS, Tokens: o.Tokens, TokenFile: o.VaultTokenFile, Filter: o.VaultFilter, Log: o.Log,
	})
	if err != nil {
		return Known{}, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: o.Dial, ForceAttemptHTTP2: true}
	if o.TLS != nil {
		transport.TLSClientConfig = o.TLS.Clone()
	}
	client := &http.Client{Transport: transport}
	key := azure.New(azure.Options{Client: client})
	return Known{
		Safes:      []credential.Safe{hashicorp, key, gcp.New(gcp.Options{Client: client}), aws.New(aws.Options{Client: client})},
		AzureToken: key.Token,
	}, nil
}

package azure

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential/credentialtest"
)

// server speaks the APIs of Key Vault and Microsoft Entra as far as they are used.
type server struct {
	*httptest.Server

	tenant string // the vault's
	refuse atomic.Bool
	tokens []string // asked for: who, with what, for what
}

const bearer = "bearer-1"

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{tenant: "tenant"}
	answer := func(w http.ResponseWriter, code int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(body)
	}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
			tenant := strings.Split(r.URL.Path, "/")[1]
			answer(w, http.StatusOK, map[string]string{
				"issuer": s.URL + "/" + tenant + "/v2.0", "authorization_endpoint": s.URL + "/" + tenant + "/authorize",
				"token_endpoint": s.URL + "/" + tenant + "/oauth2/v2.0/token",
			})
		case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
			if secret := r.FormValue("client_secret"); secret != "" && secret != credentialtest.Sign {
				answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
				return
			}
			s.tokens = append(s.tokens, strings.Split(r.URL.Path, "/")[1]+" "+r.FormValue("client_id")+" "+r.FormValue("client_assertion")+" "+r.FormValue("scope"))
			answer(w, http.StatusOK, map[string]any{"access_token": bearer, "expires_in": 3600, "token_type": "Bearer"})
		case r.Header.Get("Authorization") != "Bearer "+bearer:
			w.Header().Set("WWW-Authenticate", `Bearer authorization="`+s.URL+`/`+s.tenant+`", resource="https://vault.azure.net"`)
			answer(w, http.StatusUnauthorized, map[string]any{})
		case s.refuse.Load():
			answer(w, http.StatusForbidden, map[string]any{"error": map[string]string{"code": "Forbidden", "message": "no"}})
		case r.URL.Path == "/secrets/mine/", r.URL.Path == "/secrets/mine/v2":
			answer(w, http.StatusOK, map[string]string{"value": credentialtest.Password, "id": s.URL + "/secrets/mine/v2"})
		default:
			answer(w, http.StatusNotFound, map[string]any{"error": map[string]string{"code": "SecretNotFound", "message": "no"}})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) spec(change func(*kedav1alpha1.AzureKeyVault)) kedav1alpha1.TriggerAuthenticationSpec {
	v := &kedav1alpha1.AzureKeyVault{
		VaultURI: s.URL,
		Credentials: &kedav1alpha1.AzureKeyVaultCredentials{ClientID: "client", TenantID: "tenant", ClientSecret: &kedav1alpha1.AzureKeyVaultClientSecret{
			ValueFrom: kedav1alpha1.ValueFromSecret{SecretKeyRef: kedav1alpha1.SecretKeyRef{Name: "azure", Key: "secret"}},
		}},
		Cloud:   &kedav1alpha1.AzureKeyVaultCloudInfo{Type: "Private", ActiveDirectoryEndpoint: s.URL},
		Secrets: []kedav1alpha1.AzureKeyVaultSecret{{Parameter: "password", Name: "mine"}},
	}
	if change != nil {
		change(v)
	}
	return kedav1alpha1.TriggerAuthenticationSpec{AzureKeyVault: v}
}

func TestKeyVault(t *testing.T) {
	s := newServer(t)
	safe := New(Options{Client: s.Client()})
	of := s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Secrets[0].Version = "v2" })
	if got, err := safe.Read(t.Context(), credentialtest.Question(&of)); err != nil || got.Params["password"] != credentialtest.Password {
		t.Errorf("%v, %v: want that version", got, err)
	}
	if len(s.tokens) != 1 || s.tokens[0] != "tenant client  https://vault.azure.net/.default openid offline_access profile" {
		t.Errorf("signed in by %q", s.tokens)
	}
	credentialtest.Run(t, credentialtest.Subject{
		Safe: safe, Spec: s.spec(nil), Signs: 1,
		Missing: []kedav1alpha1.TriggerAuthenticationSpec{
			s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Secrets[0].Name = "none" }),
			s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Secrets[0].Version = "v1" }),
		},
		Wrong: map[string]kedav1alpha1.TriggerAuthenticationSpec{
			"clientID, tenantID and clientSecret are expected": s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Credentials = nil }),
			"clientID, tenantID and clientSecret":              s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Credentials.TenantID = "" }),
			"activeDirectoryEndpoint must be provided":         s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Cloud.ActiveDirectoryEndpoint = "" }),
			"invalid cloud environment Other":                  s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.Cloud.Type = "Other" }),
			"key vault does not support pod identity provider - aws": s.spec(func(v *kedav1alpha1.AzureKeyVault) {
				v.PodIdentity = &kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderAws}
			}),
		},
		Refuse: func() { s.refuse.Store(true) }, Break: s.Close,
	})
}

func TestWorkloadIdentity(t *testing.T) {
	s := newServer(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("assertion"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
	t.Setenv("AZURE_CLIENT_ID", "own")
	t.Setenv("AZURE_TENANT_ID", "home")
	t.Setenv("AZURE_AUTHORITY_HOST", s.URL)
	safe := New(Options{Client: s.Client(), Disconnected: true})
	id := kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderAzureWorkload}
	other := id
	other.IdentityID, other.IdentityTenantID = new("other"), new("away")
	for _, who := range []kedav1alpha1.AuthPodIdentity{id, id, other} {
		if got, err := safe.Token(t.Context(), who, "https://eventgrid.azure.net/.default"); err != nil || got != bearer {
			t.Fatalf("%q, %v", got, err)
		}
	}
	scope := " assertion https://eventgrid.azure.net/.default openid offline_access profile"
	if want := "home own" + scope + "; away other" + scope; strings.Join(s.tokens, "; ") != want {
		t.Errorf("signed in by %q, want %q", s.tokens, want)
	}
	s.tenant = "home"
	of := s.spec(func(v *kedav1alpha1.AzureKeyVault) { v.PodIdentity, v.Cloud = &id, nil })
	if got, err := safe.Read(t.Context(), credentialtest.Question(&of)); err != nil || got.Params["password"] != credentialtest.Password {
		t.Errorf("%v, %v", got, err)
	}
}

func TestClouds(t *testing.T) {
	for kind, want := range map[string]string{
		"AzurePublicCloud": "https://login.microsoftonline.com/", "azureUSGovernmentCloud": "https://login.microsoftonline.us/",
		"AzureChinaCloud": "https://login.chinacloudapi.cn/", "": "",
	} {
		options, disconnected, err := New(Options{}).cloud(&kedav1alpha1.AzureKeyVaultCloudInfo{Type: kind})
		if err != nil || disconnected || options.Cloud.ActiveDirectoryAuthorityHost != want {
			t.Errorf("%s is at %q, %v", kind, options.Cloud.ActiveDirectoryAuthorityHost, err)
		}
	}
}

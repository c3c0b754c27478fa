package gcp

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/adapter/credential/credentialtest"
)

// server speaks the APIs of Secret Manager, of tokens and of the metadata server as far as they are
// used.
type server struct {
	*httptest.Server

	refuse  atomic.Bool
	corrupt bool
	asked   []string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && strings.Count(r.FormValue("assertion"), ".") == 2:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"access_token": "bearer-1", "token_type": "Bearer", "expires_in": 3600}`))
		case r.URL.Path == "/computeMetadata/v1/instance/service-accounts/default/token" && r.Header.Get("Metadata-Flavor") == "Google":
			_, _ = w.Write([]byte(`{"access_token": "bearer-1", "token_type": "Bearer", "expires_in": 3600}`))
		case r.URL.Path == "/computeMetadata/v1/project/project-id":
			_, _ = w.Write([]byte("shop"))
		case s.refuse.Load() || r.Header.Get("Authorization") != "Bearer bearer-1":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/v1/projects/shop/secrets/mine/versions/latest:access", r.URL.Path == "/v1/projects/shop/secrets/mine/versions/2:access":
			s.asked = append(s.asked, r.URL.Path)
			sum := crc32.Checksum([]byte(credentialtest.Password), castagnoli)
			if s.corrupt {
				sum++
			}
			_, _ = fmt.Fprintf(w, `{"name": "n", "payload": {"data": %q, "dataCrc32c": "%d"}}`, base64.StdEncoding.EncodeToString([]byte(credentialtest.Password)), sum)
		case strings.HasPrefix(r.URL.Path, "/v1/projects/shop/secrets/empty/"):
			_, _ = w.Write([]byte(`{"name": "n", "payload": {}}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// signed is the safe with a service account's key in every Secret. Errors must not show that.
type signed struct {
	*Safe

	key string
}

func (s signed) Read(ctx context.Context, q credential.Question) (credential.Answer, error) {
	secret := q.Secret
	q.Secret = func(ctx context.Context, ref kedav1alpha1.SecretKeyRef) (string, error) {
		if _, err := secret(ctx, ref); err != nil || ref.Key != "json" {
			return "not json", err
		}
		return s.key, nil
	}
	a, err := s.Safe.Read(ctx, q)
	if err != nil && strings.Contains(err.Error(), "PRIVATE") {
		return a, fmt.Errorf("the error shows %s", credentialtest.Sign)
	}
	return a, err
}

func (s *server) key(t *testing.T, project string) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": project, "client_email": "me@shop.example", "token_uri": s.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func spec(change func(*kedav1alpha1.GCPSecretManager)) kedav1alpha1.TriggerAuthenticationSpec {
	m := &kedav1alpha1.GCPSecretManager{
		Credentials: &kedav1alpha1.GCPCredentials{ClientSecret: kedav1alpha1.GCPSecretmanagerClientSecret{
			ValueFrom: kedav1alpha1.ValueFromSecret{SecretKeyRef: kedav1alpha1.SecretKeyRef{Name: "gcp", Key: "json"}},
		}},
		Secrets: []kedav1alpha1.GCPSecretManagerSecret{{Parameter: "password", ID: "mine"}},
	}
	if change != nil {
		change(m)
	}
	return kedav1alpha1.TriggerAuthenticationSpec{GCPSecretManager: m}
}

func TestSecretManager(t *testing.T) {
	s := newServer(t)
	safe := signed{New(Options{Endpoint: s.URL}), s.key(t, "shop")}
	of := spec(func(m *kedav1alpha1.GCPSecretManager) { m.Secrets[0].Version = "2" })
	if got, err := safe.Read(t.Context(), credentialtest.Question(&of)); err != nil || got.Params["password"] != credentialtest.Password || !strings.HasSuffix(s.asked[0], "/versions/2:access") {
		t.Errorf("%v, %v: want that version", got, err)
	}
	s.corrupt = true
	if _, err := safe.Read(t.Context(), credentialtest.Question(&of)); err == nil || !strings.Contains(err.Error(), "corruption") {
		t.Errorf("error %v, want that it is corrupt", err)
	}
	s.corrupt = false
	of = spec(nil)
	if _, err := (signed{safe.Safe, s.key(t, "")}).Read(t.Context(), credentialtest.Question(&of)); err == nil || !strings.Contains(err.Error(), "project_id") {
		t.Errorf("error %v, want that the project is missing", err)
	}
	credentialtest.Run(t, credentialtest.Subject{
		Safe: safe, Spec: spec(nil), Signs: 1,
		Missing: []kedav1alpha1.TriggerAuthenticationSpec{
			spec(func(m *kedav1alpha1.GCPSecretManager) { m.Secrets[0].ID = "none" }),
			spec(func(m *kedav1alpha1.GCPSecretManager) { m.Secrets[0].ID = "empty" }),
			spec(func(m *kedav1alpha1.GCPSecretManager) { m.Secrets[0].ID = "../mine" }),
		},
		Wrong: map[string]kedav1alpha1.TriggerAuthenticationSpec{
			"clientSecret is expected":    spec(func(m *kedav1alpha1.GCPSecretManager) { m.Credentials = nil }),
			"not a service account's key": spec(func(m *kedav1alpha1.GCPSecretManager) { m.Credentials.ClientSecret.ValueFrom.SecretKeyRef.Key = "text" }),
			"pod identity provider - aws-eks": spec(func(m *kedav1alpha1.GCPSecretManager) {
				m.PodIdentity = &kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderAwsEKS}
			}),
		},
		Refuse: func() { s.refuse.Store(true) }, Break: s.Close,
	})
}

func TestWorkloadIdentity(t *testing.T) {
	s := newServer(t)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(s.URL, "http://"))
	of := spec(func(m *kedav1alpha1.GCPSecretManager) {
		m.Credentials, m.PodIdentity = nil, &kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderGCP}
	})
	got, err := New(Options{Endpoint: s.URL}).Read(t.Context(), credentialtest.Question(&of))
	if err != nil || got.Params["password"] != credentialtest.Password {
		t.Errorf("%v, %v", got, err)
	}
}

package vault

import (
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/adapter/credential/credentialtest"
)

// server speaks Vault's HTTP API as far as it is used, as documented.
type server struct {
	*httptest.Server

	refuse    atomic.Bool
	reads     atomic.Int32
	renewals  atomic.Int32
	renewable bool
	jwt       string // that logs in
	asked     map[string]any
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

type object = map[string]any

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{jwt: credentialtest.Sign}
	paths := map[string]object{
		"/v1/kv/mine":        {"data": object{"pw": credentialtest.Password, "number": 3}},
		"/v1/secret/mine":    {"data": object{"data": object{"pw": credentialtest.Password}, "metadata": object{"version": 1}}},
		"/v1/secret/deleted": {"data": object{"data": nil, "metadata": object{"deletion_time": "2026-01-01T00:00:00Z"}}},
		"/v1/database/creds": {"lease_id": "database/creds/1", "lease_duration": 600, "renewable": true, "data": object{"username": "u", "pw": credentialtest.Password}},
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.refuse.Load() || r.URL.Path != "/v1/auth/k8s/login" && r.Header.Get("X-Vault-Token") != credentialtest.Sign {
			answer(w, http.StatusForbidden, object{"errors": []string{"permission denied"}})
			return
		}
		switch body, known := paths[r.URL.Path]; {
		case r.URL.Path == "/v1/auth/k8s/login":
			var in struct{ JWT, Role string }
			if json.NewDecoder(r.Body).Decode(&in) != nil || in.JWT != s.jwt || in.Role != "worker" {
				answer(w, http.StatusForbidden, object{"errors": []string{"permission denied"}})
				return
			}
			answer(w, http.StatusOK, object{"auth": object{"client_token": credentialtest.Sign, "lease_duration": 3600, "renewable": true}})
		case r.URL.Path == "/v1/auth/token/lookup-self":
			answer(w, http.StatusOK, object{"data": object{"ttl": 3000, "renewable": s.renewable}})
		case r.URL.Path == "/v1/auth/token/renew-self":
			s.renewals.Add(1)
			answer(w, http.StatusOK, object{"auth": object{"client_token": credentialtest.Sign, "lease_duration": 1200, "renewable": true}})
		case r.URL.Path == "/v1/pki/issue/worker" && (r.Method == http.MethodPut || r.Method == http.MethodPost):
			s.asked = object{}
			_ = json.NewDecoder(r.Body).Decode(&s.asked)
			answer(w, http.StatusOK, object{"data": object{"certificate": "cert", "ca_chain": []string{"one", "two"}, "expiration": 12}})
		case known:
			s.reads.Add(1)
			answer(w, http.StatusOK, body)
		default:
			answer(w, http.StatusNotFound, object{"errors": []string{}})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func newSafe(t *testing.T, o Options) *Safe {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) spec(change func(*kedav1alpha1.HashiCorpVault), secrets ...kedav1alpha1.VaultSecret) kedav1alpha1.TriggerAuthenticationSpec {
	v := &kedav1alpha1.HashiCorpVault{
		Address: s.URL, Authentication: kedav1alpha1.VaultAuthenticationToken,
		Credential: &kedav1alpha1.Credential{Token: credentialtest.Sign}, Secrets: secrets,
	}
	if change != nil {
		change(v)
	}
	return kedav1alpha1.TriggerAuthenticationSpec{HashiCorpVault: v}
}

func at(path, key string, kind kedav1alpha1.VaultSecretType) kedav1alpha1.VaultSecret {
	return kedav1alpha1.VaultSecret{Parameter: "password", Path: path, Key: key, Type: kind}
}

func TestVault(t *testing.T) {
	s := newServer(t)
	kubernetes := func(change func(*kedav1alpha1.HashiCorpVault)) kedav1alpha1.TriggerAuthenticationSpec {
		return s.spec(func(v *kedav1alpha1.HashiCorpVault) {
			v.Authentication, v.Mount, v.Role = kedav1alpha1.VaultAuthenticationKubernetes, "k8s", "worker"
			v.Credential = &kedav1alpha1.Credential{ServiceAccountName: "worker"}
			change(v)
		}, at("kv/mine", "pw", ""))
	}
	credentialtest.Run(t, credentialtest.Subject{
		Safe: newSafe(t, Options{}), Spec: s.spec(nil, at("secret/mine", "pw", "")),
		Missing: []kedav1alpha1.TriggerAuthenticationSpec{
			s.spec(nil, at("secret/none", "pw", "")), s.spec(nil, at("secret/mine", "none", "")), s.spec(nil, at("secret/deleted", "pw", "")),
			s.spec(nil, at("kv/mine", "none", kedav1alpha1.VaultSecretTypeSecret)), s.spec(nil, at("kv/mine", "number", "")),
			s.spec(nil, at("kv/mine", "pw", kedav1alpha1.VaultSecretTypeSecretV2)),
		},
		Wrong: map[string]kedav1alpha1.TriggerAuthenticationSpec{
			"could not get Vault token":             s.spec(func(v *kedav1alpha1.HashiCorpVault) { v.Credential = nil }, at("kv/mine", "pw", "")),
			"vault auth method aws is not":          s.spec(func(v *kedav1alpha1.HashiCorpVault) { v.Authentication = "aws" }, at("kv/mine", "pw", "")),
			"permission denied":                     s.spec(func(v *kedav1alpha1.HashiCorpVault) { v.Credential.Token = "other" }, at("kv/mine", "pw", "")),
			"auth mount not in config":              kubernetes(func(v *kedav1alpha1.HashiCorpVault) { v.Mount = "" }),
			"k8s role not in config":                kubernetes(func(v *kedav1alpha1.HashiCorpVault) { v.Role = "" }),
			"logging in to Vault":                   kubernetes(func(v *kedav1alpha1.HashiCorpVault) { v.Role = "other" }),
			"unsupported vault secret type":         s.spec(nil, at("kv/mine", "pw", "none")),
			"no approved service account token aud": kubernetes(func(v *kedav1alpha1.HashiCorpVault) { v.Credential = nil }),
		},
		Refuse: func() { s.refuse.Store(true) }, Break: s.Close,
	})
}

func TestKindsOfSecrets(t *testing.T) {
	s := newServer(t)
	for name, tt := range map[string]struct {
		secret kedav1alpha1.VaultSecret
		want   string
	}{
		"version 1":              {at("kv/mine", "pw", kedav1alpha1.VaultSecretTypeSecret), credentialtest.Password},
		"version 1, not said so": {at("kv/mine", "pw", ""), credentialtest.Password},
		"version 2":              {at("secret/mine", "pw", kedav1alpha1.VaultSecretTypeSecretV2), credentialtest.Password},
		"a certificate":          {at("pki/issue/worker", "certificate", kedav1alpha1.VaultSecretTypePki), "cert"},
		"its chain":              {at("pki/issue/worker", "ca_chain", kedav1alpha1.VaultSecretTypePki), "one\ntwo"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.secret.PkiData = kedav1alpha1.VaultPkiData{CommonName: "worker.example", TTL: "24h"}
			spec := s.spec(nil, tt.secret)
			got, err := newSafe(t, Options{}).Read(t.Context(), credentialtest.Question(&spec))
			if err != nil || got.Params["password"] != tt.want {
				t.Errorf("%v, %v, want %q", got.Params, err, tt.want)
			}
		})
	}
	if s.asked["common_name"] != "worker.example" || s.asked["ttl"] != "24h" || len(s.asked) != 2 {
		t.Errorf("asked for a certificate by %v", s.asked)
	}
}

func TestLives(t *testing.T) {
	s := newServer(t)
	two := []kedav1alpha1.VaultSecret{{Parameter: "user", Path: "database/creds", Key: "username"}, at("database/creds", "pw", "")}
	for name, tt := range map[string]struct {
		renewable bool
		secrets   []kedav1alpha1.VaultSecret
		want      time.Duration
	}{
		"that of the token":           {secrets: two[:0:0], want: 2000 * time.Second},
		"that of the token, extended": {renewable: true, secrets: two[:0:0], want: 800 * time.Second},
		"that of a lease":             {secrets: two, want: 400 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s.renewable = tt.renewable
			s.reads.Store(0)
			spec := s.spec(nil, tt.secrets...)
			got, err := newSafe(t, Options{}).Read(t.Context(), credentialtest.Question(&spec))
			if err != nil {
				t.Fatal(err)
			}
			if life := time.Until(got.Expires); life > tt.want || life < tt.want-10*time.Second {
				t.Errorf("asked for again after %s, want two thirds of its life, %s", life, tt.want)
			}
			if n := s.reads.Load(); len(tt.secrets) > 0 && n != 1 {
				t.Errorf("read %d times: user and password are of different leases", n)
			}
		})
	}
	if s.renewals.Load() != 1 {
		t.Errorf("%d renewals", s.renewals.Load())
	}
}

func TestTokensFromFiles(t *testing.T) {
	s := newServer(t)
	token := func(audience string, life time.Duration) string {
		body, err := json.Marshal(object{"sub": "system:serviceaccount:keda:keda-operator", "aud": []string{audience}, "exp": time.Now().Add(life).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		return "e30." + base64.RawURLEncoding.EncodeToString(body) + ".c2ln"
	}
	approved := credential.TokenPolicy{Audiences: []credential.Audience{{Audience: "vault"}}}
	for name, tt := range map[string]struct {
		text   string
		policy credential.TokenPolicy
		want   string
	}{
		"an approved one":             {text: token("vault", time.Hour), policy: approved},
		"another audience":            {text: token("kubernetes", time.Hour), policy: approved, want: "audience not approved"},
		"one that is over":            {text: token("vault", -time.Hour), policy: approved, want: "lifetime"},
		"no token":                    {text: "root:x:0:0", policy: approved, want: "not a JSON web token"},
		"far too much":                {text: strings.Repeat("x", maxToken+1), policy: approved, want: "exceeds maximum size"},
		"whatever it is, the old way": {text: token("kubernetes", time.Hour), policy: credential.TokenPolicy{Legacy: true}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(path, []byte(tt.text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.jwt = tt.text
			spec := s.spec(func(v *kedav1alpha1.HashiCorpVault) {
				v.Authentication, v.Mount, v.Role = kedav1alpha1.VaultAuthenticationKubernetes, "k8s", "worker"
				v.Credential = &kedav1alpha1.Credential{ServiceAccount: path}
			}, at("kv/mine", "pw", ""))
			got, err := newSafe(t, Options{Tokens: tt.policy}).Read(t.Context(), credentialtest.Question(&spec))
			if tt.want == "" && (err != nil || got.Params["password"] != credentialtest.Password) ||
				tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, error %v, want %q", got.Params, err, tt.want)
			}
		})
	}
}

func TestFilter(t *testing.T) {
	for text, want := range map[string]string{
		"": "", `{"hashiCorpVault": {"mode": "warn"}}`: "",
		"hashiCorpVault: {mode: enforce, allowedEndpoints: ['https://vault.example:8200/']}": "",
		"hashiCorpVault: {mode: maybe}": "expected off, warn, or enforce",
		"hashiCorpVault: null":          "must be off, warn, or enforce",
		"hashiCorpVault: {mode: enforce, allowedEndpoints: ['https://*.e']}":   "expected an HTTP(S) origin",
		"hashiCorpVault: {mode: enforce, allowedEndpoints: ['https://u:p@e']}": "expected an HTTP(S) origin",
		"vault: {}": "unknown field",
	} {
		if _, err := ParseFilter(text); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	log := slog.New(slog.DiscardHandler)
	allowed := []string{"https://vault.example:8200/"}
	for name, tt := range map[string]struct {
		filter  Filter
		address string
		want    bool
	}{
		"no filter":            {Filter{}, "http://anywhere", true},
		"an allowed one":       {Filter{"enforce", allowed}, "HTTPS://Vault.example:8200/v1", true},
		"another port":         {Filter{"enforce", allowed}, "https://vault.example", false},
		"another scheme":       {Filter{"enforce", allowed}, "http://vault.example:8200", false},
		"with a user":          {Filter{"enforce", allowed}, "https://me@vault.example:8200", false},
		"an empty list":        {Filter{"enforce", nil}, "https://vault.example:8200", false},
		"warned of, and asked": {Filter{"warn", allowed}, "http://anywhere", true},
	} {
		if err := tt.filter.check(tt.address, log); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

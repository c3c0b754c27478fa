package aws

import (
	"encoding/json"
	"fmt"
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

// server speaks the APIs of Secrets Manager and the Security Token Service as far as they are used.
type server struct {
	*httptest.Server

	refuse    atomic.Bool
	keys      string            // the access key that may read
	asked     map[string]string // the latest question
	roles     []string          // taken, with how
	federated bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{keys: credentialtest.Sign}
	secrets := map[string]string{
		"plain": credentialtest.Password, "fields": `{"pw": "` + credentialtest.Password + `", "number": 3}`,
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Target") == "" {
			s.assume(w, r)
			return
		}
		fail := func(code int, kind string) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, `{"__type": %q, "Message": "no"}`, kind)
		}
		s.asked = map[string]string{}
		switch {
		case s.refuse.Load() || !strings.Contains(r.Header.Get("Authorization"), "Credential="+s.keys+"/"):
			fail(http.StatusBadRequest, "AccessDeniedException")
		case r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || json.NewDecoder(r.Body).Decode(&s.asked) != nil:
			fail(http.StatusBadRequest, "InvalidRequestException")
		case s.asked["SecretId"] == "binary":
			_, _ = w.Write([]byte(`{"Name": "binary", "SecretBinary": "AAEC"}`))
		case secrets[s.asked["SecretId"]] == "":
			fail(http.StatusBadRequest, "ResourceNotFoundException")
		default:
			_ = json.NewEncoder(w).Encode(map[string]string{"Name": s.asked["SecretId"], "SecretString": secrets[s.asked["SecretId"]]})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// assume gives keys for a role.
func (s *server) assume(w http.ResponseWriter, r *http.Request) {
	action := r.FormValue("Action")
	if action == "AssumeRoleWithWebIdentity" && !s.federated {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`))
		return
	}
	s.roles = append(s.roles, action+" "+r.FormValue("RoleArn")+" "+r.FormValue("ExternalId"))
	_, _ = fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>x</SecretAccessKey>`+
		`<SessionToken>y</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></%[1]sResult></%[1]sResponse>`, action)
}

func from(key string) *kedav1alpha1.AwsSecretManagerValue {
	return &kedav1alpha1.AwsSecretManagerValue{ValueFrom: kedav1alpha1.ValueFromSecret{SecretKeyRef: kedav1alpha1.SecretKeyRef{Name: "aws", Key: key}}}
}

func spec(change func(*kedav1alpha1.AwsSecretManager)) kedav1alpha1.TriggerAuthenticationSpec {
	m := &kedav1alpha1.AwsSecretManager{
		Region:      "eu-central-1",
		Credentials: &kedav1alpha1.AwsSecretManagerCredentials{AccessKey: from("id"), AccessSecretKey: from("key"), AccessToken: from("token")},
		Secrets:     []kedav1alpha1.AwsSecretManagerSecret{{Parameter: "password", Name: "fields", SecretKey: "pw"}},
	}
	if change != nil {
		change(m)
	}
	return kedav1alpha1.TriggerAuthenticationSpec{AwsSecretManager: m}
}

func named(name, key string) kedav1alpha1.TriggerAuthenticationSpec {
	return spec(func(m *kedav1alpha1.AwsSecretManager) { m.Secrets[0].Name, m.Secrets[0].SecretKey = name, key })
}

func alone(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
}

func TestSecretsManager(t *testing.T) {
	alone(t)
	s := newServer(t)
	credentialtest.Run(t, credentialtest.Subject{
		Safe: New(Options{Endpoint: s.URL}), Spec: spec(nil), Signs: 3,
		Missing: []kedav1alpha1.TriggerAuthenticationSpec{
			named("none", ""), named("fields", "none"), named("fields", "number"), named("plain", "pw"), named("binary", ""),
		},
		Wrong: map[string]kedav1alpha1.TriggerAuthenticationSpec{
			"AccessKeyID and AccessSecretKey are expected": spec(func(m *kedav1alpha1.AwsSecretManager) { m.Credentials = nil }),
			"pod identity provider gcp not supported": spec(func(m *kedav1alpha1.AwsSecretManager) {
				m.PodIdentity = &kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderGCP}
			}),
		},
		Refuse: func() { s.refuse.Store(true) }, Break: s.Close,
	})
}

func TestVersions(t *testing.T) {
	alone(t)
	s := newServer(t)
	of := spec(func(m *kedav1alpha1.AwsSecretManager) {
		m.Secrets[0] = kedav1alpha1.AwsSecretManagerSecret{Parameter: "password", Name: "plain", VersionID: "v", VersionStage: "AWSPREVIOUS"}
	})
	got, err := New(Options{Endpoint: s.URL}).Read(t.Context(), credentialtest.Question(&of))
	if err != nil || got.Params["password"] != credentialtest.Password || s.asked["VersionId"] != "v" || s.asked["VersionStage"] != "AWSPREVIOUS" {
		t.Errorf("%v, %v, asked %v", got, err, s.asked)
	}
}

func TestRoles(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	identity := kedav1alpha1.PodIdentityProviderAws
	for name, tt := range map[string]struct {
		identity  kedav1alpha1.AuthPodIdentity
		token     string
		federated bool
		want      string
		keys      string
	}{
		"one that is named, by ebb's identity": {
			identity: kedav1alpha1.AuthPodIdentity{Provider: identity, RoleArn: new("arn:named"), ExternalID: new("out")},
			want:     "AssumeRole arn:named out", keys: "ROLE",
		},
		"the workload's, by ebb's token": {
			identity: kedav1alpha1.AuthPodIdentity{Provider: identity, IdentityOwner: new("workload")}, token: token, federated: true,
			want: "AssumeRoleWithWebIdentity arn:aws:iam::1:role/worker ", keys: "ROLE",
		},
		"the workload's, with the token refused": {
			identity: kedav1alpha1.AuthPodIdentity{Provider: identity, IdentityOwner: new("workload")}, token: token,
			want: "AssumeRole arn:aws:iam::1:role/worker ", keys: "ROLE",
		},
		"none": {identity: kedav1alpha1.AuthPodIdentity{Provider: identity}, keys: "OWN"},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			t.Setenv("AWS_ACCESS_KEY_ID", "OWN")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "own")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", tt.token)
			s := newServer(t)
			s.keys, s.federated = tt.keys, tt.federated
			of := spec(func(m *kedav1alpha1.AwsSecretManager) { m.PodIdentity = &tt.identity })
			got, err := New(Options{Endpoint: s.URL}).Read(t.Context(), credentialtest.Question(&of))
			if err != nil || got.Params["password"] != credentialtest.Password {
				t.Fatalf("%v, %v", got, err)
			}
			if strings.Join(s.roles, "; ") != tt.want {
				t.Errorf("took %v, want %s", s.roles, tt.want)
			}
		})
	}
}

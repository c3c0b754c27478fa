package credential

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"
)

type spec = kedav1alpha1.TriggerAuthenticationSpec

func from(name, key string) kedav1alpha1.ValueFromSecret {
	return kedav1alpha1.ValueFromSecret{SecretKeyRef: kedav1alpha1.SecretKeyRef{Name: name, Key: key}}
}

func TestParameters(t *testing.T) {
	for name, tt := range map[string]struct {
		spec    spec
		kind    string
		options Options
		pod     *corev1.PodTemplateSpec
		want    map[string]string
		missing []string
	}{
		"come from Secrets": {
			spec: spec{SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "mine", Key: "pw"}}},
			want: map[string]string{"password": "local"},
		},
		"come from the cluster's namespace for the cluster's kind": {
			kind: clusterKind,
			spec: spec{SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "mine", Key: "pw"}}},
			want: map[string]string{"password": "global"},
		},
		"come from a namespace that was chosen": {
			kind: clusterKind, options: Options{ClusterObjectNamespace: "default"},
			spec: spec{SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "mine", Key: "pw"}}},
			want: map[string]string{"password": "local"},
		},
		"come from the cluster's namespace where access is restricted": {
			options: Options{RestrictSecretAccess: true},
			spec:    spec{SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "mine", Key: "pw"}}},
			want:    map[string]string{"password": "global"},
		},
		"come from ConfigMaps, which are not restricted": {
			options: Options{RestrictSecretAccess: true},
			spec:    spec{ConfigMapTargetRef: []kedav1alpha1.AuthConfigMapTargetRef{{Parameter: "host", Name: "settings", Key: "host"}}},
			want:    map[string]string{"host": "db.default"},
		},
		"are empty where a Secret is missing": {
			spec:    spec{SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "none", Key: "pw"}}},
			want:    map[string]string{"password": ""},
			missing: []string{"secrets default/none does not exist; create it or correct the name"},
		},
		"are empty where keys are missing": {
			spec: spec{
				SecretTargetRef:    []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "mine", Key: "none"}},
				ConfigMapTargetRef: []kedav1alpha1.AuthConfigMapTargetRef{{Parameter: "host", Name: "settings", Key: "none"}},
			},
			want: map[string]string{"password": "", "host": ""},
			missing: []string{
				`configmaps default/settings has no key "none"; add it or correct the key`,
				`secrets default/mine has no key "none"; add it or correct the key`,
			},
		},
		"come from the container's environment": {
			pod:  pod([]corev1.EnvVar{{Name: "HOST", Value: "db"}}),
			spec: spec{Env: []kedav1alpha1.AuthEnvironment{{Parameter: "host", Name: "HOST"}, {Parameter: "other", Name: "NONE", ContainerName: "main"}}},
			want: map[string]string{"host": "db", "other": ""},
		},
		"are empty without a container": {
			spec:    spec{Env: []kedav1alpha1.AuthEnvironment{{Parameter: "host", Name: "HOST"}}},
			want:    map[string]string{"host": ""},
			missing: []string{`parameter "host" of triggerauthentications default/auth: the target has no containers to take HOST from`},
		},
		"tell how to get OAuth tokens": {
			spec: spec{OAuth2: &kedav1alpha1.OAuth2{
				ClientID: "me", TokenURL: "https://id.example", Scopes: []string{"read", "write"},
				ClientSecret: kedav1alpha1.OAuth2ClientSecret{ValueFrom: from("mine", "pw")}, TokenURLParams: map[string]string{"resource": "a b"},
			}},
			want: map[string]string{
				"oauthTokenURI": "https://id.example", "clientID": "me", "clientSecret": "local",
				"scopes": "read,write", "endpointParams": "resource=a+b",
			},
		},
		"tell of a service principal": {
			spec: spec{AzureServicePrincipal: &kedav1alpha1.AzureServicePrincipal{
				TenantID: "t", ClientID: "c", Cloud: "Private", ActiveDirectoryEndpoint: "https://ad.example",
				ClientCertificate: &kedav1alpha1.AzureServicePrincipalCredential{ValueFrom: from("mine", "pw")},
			}},
			want: map[string]string{
				"azureServicePrincipal": "true", "azureServicePrincipalTenantId": "t", "azureServicePrincipalClientId": "c",
				"azureServicePrincipalCloud": "Private", "azureServicePrincipalActiveDirectoryEndpoint": "https://ad.example",
				"azureServicePrincipalClientCertificate": "local",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.options,
				local("default", "auth", tt.spec), global("auth", tt.spec),
				secret("default", "mine", map[string]string{"pw": "local"}), secret("keda", "mine", map[string]string{"pw": "global"}),
				configMap("default", "settings", map[string]string{"host": "db.default"}))
			got, err := r.Resolve(t.Context(), Request{
				Namespace: "default", Ref: &kedav1alpha1.AuthenticationRef{Name: "auth", Kind: tt.kind}, Pod: tt.pod,
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Params); diff != "" {
				t.Error(diff)
			}
			var missing []string
			for _, err := range got.Missing {
				missing = append(missing, err.Error())
			}
			if diff := cmp.Diff(tt.missing, missing); diff != "" {
				t.Error(diff)
			}
			if !got.Expires.IsZero() || got.Identity.Provider != kedav1alpha1.PodIdentityProviderNone {
				t.Errorf("expires %v, identity %q", got.Expires, got.Identity.Provider)
			}
		})
	}
}

func TestWhatIsMissingExplainsAFailure(t *testing.T) {
	r := newRig(t, Options{})
	got, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: ref("none")})
	if err != nil || len(got.Params) > 0 {
		t.Fatalf("%v, %v: want nothing, as with KEDA", got.Params, err)
	}
	if err := got.Explain(nil); err != nil {
		t.Errorf("explained no failure by %v", err)
	}
	err = got.Explain(errors.New("no password given"))
	if want := "no password given\ntriggerauthentications default/none does not exist; create it or correct the trigger's authenticationRef"; err == nil || err.Error() != want {
		t.Errorf("explained by %v", err)
	}
	if _, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: &kedav1alpha1.AuthenticationRef{Name: "a", Kind: "Secret"}}); err == nil {
		t.Error("resolved an unknown kind")
	}
	if got, err := r.Resolve(t.Context(), Request{Namespace: "default"}); err != nil || got.Params == nil || got.Env == nil {
		t.Errorf("%v, %v: want empty maps without a reference", got, err)
	}
}

func TestAnAPIThatFailsIsAnError(t *testing.T) {
	r := newRig(t, Options{}, local("default", "auth", spec{
		SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: "mine", Key: "pw"}},
	}))
	r.api.PrependReactor("get", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	_, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: ref("auth")})
	if want := `resolving triggerauthentications default/auth: parameter "password": reading secrets default/mine: connection refused`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestFiles(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(filepath.Dir(root), "outside.json")
	for path, text := range map[string]string{
		filepath.Join(root, "creds.json"): `{"token": "xyz"}`,
		filepath.Join(root, "bad.json"):   `{"token": {"secret-value": 1}}`,
		outside:                           `{"token": "outside"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		path, root, kind string
		want             string // an error's part
	}{
		"a file":                       {path: "creds.json", root: root, kind: clusterKind},
		"the other kind":               {path: "creds.json", root: root, want: "filePath is only supported for ClusterTriggerAuthentication, got kind: "},
		"no folder":                    {path: "creds.json", kind: clusterKind, want: "--filepath-auth-root-path"},
		"outside of the folder":        {path: "../outside.json", root: root, kind: clusterKind, want: "filePath must be relative"},
		"an absolute path":             {path: outside, root: root, kind: clusterKind, want: "filePath must be relative"},
		"something else than texts":    {path: "bad.json", root: root, kind: clusterKind, want: "is not a JSON object of texts"},
		"a file that is not there yet": {path: "none.json", root: root, kind: clusterKind, want: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec{FilePath: tt.path, SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "other", Name: "none", Key: "k"}}}
			r := newRig(t, Options{Files: tt.root}, local("default", "auth", s), global("auth", s))
			got, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: &kedav1alpha1.AuthenticationRef{Name: "auth", Kind: tt.kind}})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret-value") {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			if diff := cmp.Diff(map[string]string{"token": "xyz"}, got.Params); diff != "" || err != nil {
				t.Error(diff, err)
			}
			if got.Expires.IsZero() {
				t.Error("the file is never read again")
			}
		})
	}
}

func TestIdentities(t *testing.T) {
	aws := func(id kedav1alpha1.AuthPodIdentity) kedav1alpha1.AuthPodIdentity {
		id.Provider = kedav1alpha1.PodIdentityProviderAws
		return id
	}
	for name, tt := range map[string]struct {
		identity kedav1alpha1.AuthPodIdentity
		account  string
		role     string
		want     string // an error's part
	}{
		"a role":                       {identity: aws(kedav1alpha1.AuthPodIdentity{RoleArn: new("arn:1")}), role: "arn:1"},
		"a role of the workload's":     {identity: aws(kedav1alpha1.AuthPodIdentity{IdentityOwner: new("workload")}), account: "worker", role: "arn:worker"},
		"both":                         {identity: aws(kedav1alpha1.AuthPodIdentity{RoleArn: new("arn:1"), IdentityOwner: new("workload")}), want: "roleArn can't be set"},
		"an account without a role":    {identity: aws(kedav1alpha1.AuthPodIdentity{IdentityOwner: new("workload")}), want: "annotation 'eks.amazonaws.com/role-arn' not found"},
		"an account that is not there": {identity: aws(kedav1alpha1.AuthPodIdentity{IdentityOwner: new("workload")}), account: "none", want: "serviceaccounts default/none does not exist"},
		"the old kind without a role":  {identity: kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderAwsEKS}},
		"an empty identity of Azure's": {identity: kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderAzureWorkload, IdentityID: new("")}, want: "IdentityID of PodIdentity should not be empty"},
		"GCP's":                        {identity: kedav1alpha1.AuthPodIdentity{Provider: kedav1alpha1.PodIdentityProviderGCP}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{}, local("default", "auth", spec{PodIdentity: &tt.identity}),
				account("default", "default", nil), account("default", "worker", map[string]string{"eks.amazonaws.com/role-arn": "arn:worker"}))
			template := pod(nil)
			template.Spec.ServiceAccountName = tt.account
			got, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: ref("auth"), Pod: template})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil || got.Params["awsRoleArn"] != tt.role || got.Identity.Provider != tt.identity.Provider {
				t.Errorf("%v as %q, %v", got.Params, got.Identity.Provider, err)
			}
		})
	}
}

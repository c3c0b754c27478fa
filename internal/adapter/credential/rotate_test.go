package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"ebb.dev/ebb/internal/platform/kube/object"
)

var (
	secrets         = object.Secrets.Key("", "").Resource
	authentications = object.TriggerAuthentications.Key("", "").Resource
)

func bySecret(name string) spec {
	return spec{SecretTargetRef: []kedav1alpha1.AuthSecretTargetRef{{Parameter: "password", Name: name, Key: "pw"}}}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, local("default", "auth", bySecret("mine")),
			secret("default", "mine", map[string]string{"pw": "one"}), secret("default", "other", map[string]string{"pw": "two"}),
			secret("default", "env", map[string]string{"k": "v"}))
		q := Request{Namespace: "default", Ref: ref("auth"), Pod: pod(nil, corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("env")}})}
		var told atomic.Int32
		password := func() string {
			synctest.Wait()
			got, err := r.Resolve(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			return got.Params["password"] + " " + got.Env["k"]
		}
		stop := r.Watch(q, func() { told.Add(1) })
		if got := password(); got != "one v" || told.Load() != 0 || r.store.Len() != 3 {
			t.Fatalf("%q, told %d, following %d", got, told.Load(), r.store.Len())
		}
		r.update(t, secrets, secret("default", "mine", map[string]string{"pw": "new"}), "2")
		if got := password(); got != "new v" || told.Load() != 1 {
			t.Errorf("%q, told %d after the Secret changed", got, told.Load())
		}
		r.update(t, authentications, local("default", "auth", bySecret("other")), "2")
		if got := password(); got != "two v" || told.Load() != 2 {
			t.Errorf("%q, told %d after the authentication changed", got, told.Load())
		}
		r.update(t, secrets, secret("default", "mine", map[string]string{"pw": "newer"}), "3")
		synctest.Wait()
		if told.Load() != 2 {
			t.Error("told of a Secret that is not used any more")
		}
		r.update(t, secrets, secret("default", "other", map[string]string{"pw": "three"}), "2")
		r.update(t, secrets, secret("default", "env", map[string]string{"k": "w"}), "2")
		if got := password(); got != "three w" || told.Load() != 4 {
			t.Errorf("%q, told %d after both Secrets changed", got, told.Load())
		}
		if err := r.api.Tracker().Delete(secrets, "default", "other"); err != nil {
			t.Fatal(err)
		}
		if got := password(); got != " w" || told.Load() != 5 {
			t.Errorf("%q, told %d after the Secret went", got, told.Load())
		}
		stop()
		stop()
		synctest.Wait()
		if r.store.Len() != 0 {
			t.Errorf("%d objects are still followed", r.store.Len())
		}
	})
}

func TestManyTriggersShareWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var objects []runtime.Object
		for i := range 3 {
			objects = append(objects, local("default", fmt.Sprint("auth-", i), bySecret(fmt.Sprint("secret-", i))),
				secret("default", fmt.Sprint("secret-", i), map[string]string{"pw": "x"}))
		}
		r := newRig(t, Options{}, objects...)
		var stops []func()
		for i := range 2000 {
			q := Request{Namespace: "default", Ref: ref(fmt.Sprint("auth-", i%3))}
			stops = append(stops, r.Watch(q, func() {}))
			if _, err := r.Resolve(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		total := 0
		for _, n := range r.reads {
			total += n
		}
		if r.store.Len() != 6 || total > 20 {
			t.Errorf("following %d by %v, want 6 by one list and watch each", r.store.Len(), r.reads)
		}
		for what, n := range r.reads {
			if strings.HasPrefix(what, "list") && n > 3 {
				t.Errorf("%d times %s", n, what)
			}
		}
		for _, stop := range stops {
			stop()
		}
	})
}

func TestTokens(t *testing.T) {
	policy := TokenPolicy{Audiences: []Audience{{Audience: "db", Namespace: "default", ServiceAccountName: "worker"}}}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Tokens: policy}, account("default", "worker", nil), local("default", "auth", spec{
			BoundServiceAccountToken: []kedav1alpha1.BoundServiceAccountToken{{Parameter: "token", ServiceAccountName: "worker"}},
		}))
		resolve := func() Resolved {
			got, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: ref("auth")})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first := resolve()
		if first.Params["token"] == "" || time.Until(first.Expires) != 30*time.Minute {
			t.Errorf("token %q until %v, want one for half its life", first.Params["token"], first.Expires)
		}
		if again := resolve(); again.Params["token"] != first.Params["token"] || len(r.minted) != 1 {
			t.Error("each trigger has a token made")
		}
		if got := r.minted[0]; got.Audiences[0] != "db" || *got.ExpirationSeconds != 3600 {
			t.Errorf("asked for %v", got)
		}
		time.Sleep(time.Until(first.Expires))
		if resolve(); len(r.minted) != 2 {
			t.Error("no new token at half the life of the old one")
		}
	})
	for name, tt := range map[string]struct {
		policy  TokenPolicy
		account string
		token   func(t *testing.T) string
		want    string
	}{
		"no approved audience": {account: "worker", want: "no configured token audience for service account default/worker in KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES"},
		"another audience than asked for": {policy: policy, account: "worker", want: "audience not approved", token: func(t *testing.T) string {
			return jwt(t, map[string]any{"sub": "system:serviceaccount:default:worker", "aud": "other", "exp": time.Now().Add(time.Hour).Unix()})
		}},
		"an account that is not there": {policy: policy, account: "none", want: "serviceaccounts default/none does not exist"},
		"no account":                   {policy: policy, want: "serviceAccountName is required"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{Tokens: tt.policy}, account("default", "worker", nil), local("default", "auth", spec{
				BoundServiceAccountToken: []kedav1alpha1.BoundServiceAccountToken{{Parameter: "token", ServiceAccountName: tt.account}},
			}))
			if tt.token != nil {
				r.tokenOf = func(authenticationv1.TokenRequestSpec) string { return tt.token(t) }
			}
			if _, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: ref("auth")}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPolicies(t *testing.T) {
	for text, want := range map[string]string{
		`[{"audience": "a"}]`: "",
		"- audience: a\n  namespace: ns\n  serviceAccountName: sa": "",
		`[{"audience": " a"}]`:                                              "no surrounding whitespace",
		`[{"audience": "a", "namespace": "ns"}]`:                            "must set both namespace and serviceAccountName",
		`[{"audience": "a", "namespace": "*", "serviceAccountName": "sa"}]`: "wildcards are not supported",
		"- {audience: a, namespace: ns, serviceAccountName: sa}\n- {audience: b, namespace: ns, serviceAccountName: sa}": "duplicate",
		`[{"audiences": "a"}]`: "unknown field",
	} {
		audiences, err := ParseAudiences(text)
		if err == nil {
			_, err = New(nil, nil, Options{Tokens: TokenPolicy{Audiences: audiences}})
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	for _, p := range []TokenPolicy{{Expiry: time.Minute}, {Expiry: 7 * time.Hour}, {Legacy: true, Audiences: []Audience{{Audience: "a"}}}} {
		if _, err := New(nil, nil, Options{Tokens: p}); err == nil {
			t.Errorf("%v is accepted", p)
		}
	}
}

func TestManyTriggersAskASafeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &safe{name: "hashiCorpVault", signs: []kedav1alpha1.SecretKeyRef{{Name: "sign", Key: "in"}}}
		s.answer = func(ctx context.Context, q Question) (Answer, error) {
			with, err := q.Secret(ctx, s.signs[0])
			return Answer{Params: map[string]string{"password": "with " + with}, Expires: time.Now().Add(time.Hour)}, err
		}
		r := newRig(t, Options{Safes: []Safe{s}}, secret("default", "sign", map[string]string{"in": "one"}),
			local("default", "auth", spec{HashiCorpVault: &kedav1alpha1.HashiCorpVault{Secrets: []kedav1alpha1.VaultSecret{{}}}}))
		q := Request{Namespace: "default", Ref: ref("auth")}
		defer r.Watch(q, func() {})()
		resolve := func() Resolved {
			synctest.Wait()
			got, err := r.Resolve(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		for range 100 {
			if got := resolve(); got.Params["password"] != "with one" || time.Until(got.Expires) != safeAgain {
				t.Fatalf("%v until %v", got.Params, got.Expires)
			}
		}
		if s.reads != 1 {
			t.Errorf("asked %d times", s.reads)
		}
		r.update(t, secrets, secret("default", "sign", map[string]string{"in": "two"}), "2")
		if got := resolve(); got.Params["password"] != "with two" {
			t.Errorf("%v after the Secret to sign in with changed", got.Params)
		}
		time.Sleep(safeFresh)
		if resolve(); s.reads != 3 {
			t.Errorf("asked %d times, want again after a while", s.reads)
		}
		s.answer = func(context.Context, Question) (Answer, error) { return Answer{}, errors.New("sealed") }
		time.Sleep(safeFresh)
		if _, err := r.Resolve(t.Context(), q); err == nil || !strings.Contains(err.Error(), "reading from hashiCorpVault: sealed") {
			t.Errorf("error %v, want the safe's", err)
		}
	})
	r := newRig(t, Options{}, local("default", "auth", spec{HashiCorpVault: &kedav1alpha1.HashiCorpVault{Secrets: []kedav1alpha1.VaultSecret{{}}}}))
	if _, err := r.Resolve(t.Context(), Request{Namespace: "default", Ref: ref("auth")}); err == nil {
		t.Error("a safe that is not there is no error")
	}
}

package config

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// environment looks variables up.
func environment(variables map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, given := variables[name]
		return value, given
	}
}

func TestKedasEnvironmentIsRead(t *testing.T) {
	if got, err := ReadKeda(environment(map[string]string{"WATCH_NAMESPACE": `""`, "KEDA_HTTP_DEFAULT_TIMEOUT": " "})); err != nil || !cmp.Equal(got, Keda{}) {
		t.Errorf("of nothing = %+v, %v", got, err)
	}
	got, err := ReadKeda(environment(map[string]string{
		"WATCH_NAMESPACE": "shop, batch", "KEDA_HTTP_DEFAULT_TIMEOUT": "1500", "KEDA_HTTP_DISABLE_KEEP_ALIVE": "true", "KEDA_HTTP_MIN_TLS_VERSION": "TLS13",
		"KEDA_HTTP_TLS_CIPHER_LIST": "TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	}))
	if err == nil || !strings.Contains(err.Error(), `reading KEDA_HTTP_TLS_CIPHER_LIST`) || !strings.Contains(err.Error(), `no cipher suite "TLS_RSA_WITH_AES_128_CBC_SHA"`) {
		t.Errorf("an insecure cipher suite is taken: %+v, %v", got, err)
	}
	got, err = ReadKeda(environment(map[string]string{
		"WATCH_NAMESPACE": "shop, batch", "KEDA_HTTP_DEFAULT_TIMEOUT": "1500", "KEDA_HTTP_DISABLE_KEEP_ALIVE": "true", "KEDA_HTTP_MIN_TLS_VERSION": "TLS13",
		"KEDA_HTTP_TLS_CIPHER_LIST":     "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
		"KEDA_CLUSTER_OBJECT_NAMESPACE": "vault", "KEDA_RESTRICT_SECRET_ACCESS": "True", "KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY": "2h",
		"KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES": "[{audience: x}]", "KEDA_OUTBOUND_FILTER": "{hashiCorpVault: {mode: warn}}",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := Keda{
		Namespaces: []string{"shop", "batch"}, Timeout: 1500 * time.Millisecond, NoKeepAlive: true, MinTLS: tls.VersionTLS13,
		Ciphers:        []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		ClusterObjects: "vault", RestrictSecrets: true, TokenExpiry: 2 * time.Hour,
		TokenAudiences: "[{audience: x}]", OutboundFilter: "{hashiCorpVault: {mode: warn}}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for namespace, want := range map[string]bool{"shop": true, "other": false, "": true} {
		if got.Watches(namespace) != want {
			t.Errorf("Watches(%q) = %v", namespace, !want)
		}
	}
}

func TestMistakesInKedasEnvironmentAreAllTold(t *testing.T) {
	wrong := map[string]string{
		"KEDA_HTTP_DEFAULT_TIMEOUT": "3s", "KEDA_HTTP_DISABLE_KEEP_ALIVE": "maybe", "KEDA_HTTP_MIN_TLS_VERSION": "1.3",
		"KEDA_RESTRICT_SECRET_ACCESS": "all", "KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY": "10m",
	}
	_, err := ReadKeda(environment(wrong))
	if err == nil {
		t.Fatal("everything is taken")
	}
	for name, value := range wrong {
		if !strings.Contains(err.Error(), "reading "+name+", which is \""+value+"\"") {
			t.Errorf("nothing is said of %s in: %v", name, err)
		}
	}
}

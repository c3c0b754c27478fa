package authority_test

import (
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"ebb.dev/ebb/internal/platform/authority"
)

var where = types.NamespacedName{Namespace: "system", Name: "ca"}

func opened(t *testing.T, client *fake.Clientset) *authority.Keeper {
	t.Helper()
	k, err := authority.Open(t.Context(), authority.KeeperConfig{
		Client: client, Secret: where, Labels: map[string]string{"mark": "ca"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func stored(t *testing.T, client *fake.Clientset) *corev1.Secret {
	t.Helper()
	secret, err := client.CoreV1().Secrets(where.Namespace).Get(t.Context(), where.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestTheAuthorityIsMadeOnceAndKept(t *testing.T) {
	client := fake.NewClientset()
	first := opened(t, client)
	secret := stored(t, client)
	if secret.Type != corev1.SecretTypeTLS || secret.Labels["mark"] != "ca" || string(secret.Data["ca.crt"]) != string(first.Current().PEM()) {
		t.Errorf("kept in %s %v", secret.Type, secret.Labels)
	}
	if again := opened(t, client); string(again.Current().PEM()) != string(first.Current().PEM()) {
		t.Error("another authority after a restart")
	}
}

func TestTheAuthorityFollowsItsSecret(t *testing.T) {
	client := fake.NewClientset()
	k := opened(t, client)
	changes := 0
	k.Subscribe(func() { changes++ })
	observe := func(secret *corev1.Secret, want int) {
		t.Helper()
		if err := k.Observe(t.Context(), secret); err != nil || changes != want {
			t.Fatalf("%d changes told, %v; want %d", changes, err, want)
		}
	}
	observe(stored(t, client), 0)

	users, err := authority.New("users", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret := stored(t, client)
	secret.Data = users.Pair().Data(users)
	observe(secret, 1)
	if string(k.Current().PEM()) != string(users.PEM()) {
		t.Error("a user's authority is not taken over")
	}
	secret.Data = map[string][]byte{"tls.crt": []byte("rubbish")}
	observe(secret, 1)
	if string(k.Current().PEM()) != string(users.PEM()) {
		t.Error("an authority that cannot be read displaced one that can")
	}
	if err := client.CoreV1().Secrets(where.Namespace).Delete(t.Context(), where.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	observe(nil, 2)
	if made := stored(t, client); string(made.Data["tls.crt"]) != string(k.Current().PEM()) || string(k.Current().PEM()) == string(users.PEM()) {
		t.Error("after its deletion no new authority is kept")
	}
}

func TestAnAuthorityNearItsEndIsReplaced(t *testing.T) {
	old, err := authority.New("old", time.Now().AddDate(-10, 0, 10))
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: where.Name, Namespace: where.Namespace}, Data: old.Pair().Data(old)})
	k := opened(t, client)
	if string(k.Current().PEM()) == string(old.PEM()) || string(stored(t, client).Data["tls.crt"]) != string(k.Current().PEM()) {
		t.Error("the old authority stays")
	}
}

func TestADamagedAuthorityIsStoodInForAndLeft(t *testing.T) {
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: where.Name, Namespace: where.Namespace}, Data: map[string][]byte{"tls.crt": []byte("x")}})
	if k := opened(t, client); k.Current() == nil {
		t.Error("there is no authority")
	}
	if string(stored(t, client).Data["tls.crt"]) != "x" {
		t.Error("what a user put there was overwritten")
	}
}

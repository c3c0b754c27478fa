package keyring_test

import (
	"crypto/tls"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	netapi "knative.dev/networking/pkg/apis/networking"

	"ebb.dev/ebb/internal/component/keyring"
	"ebb.dev/ebb/internal/platform/authority"
)

const host = "hello.shop.localhost"

type rig struct {
	*keyring.Ring
	t      *testing.T
	client *fake.Clientset
	keeper *authority.Keeper
}

func newRig(t *testing.T) *rig {
	t.Helper()
	client := fake.NewClientset()
	log := slog.New(slog.DiscardHandler)
	keeper, err := authority.Open(t.Context(), authority.KeeperConfig{Client: client, Secret: types.NamespacedName{Namespace: "system", Name: "ca"}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{keyring.New(keyring.Config{Client: client, Authority: keeper, Log: log}), t, client, keeper}
}

// secret holds a fresh pair for a host.
func (r *rig) secret(name, of string, marked bool) *corev1.Secret {
	r.t.Helper()
	pair, err := r.keeper.Current().Sign([]string{of}, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Data: pair.Data(r.keeper.Current())}
	if marked {
		s.Labels = map[string]string{netapi.CertificateUIDLabelKey: "u"}
	}
	return s
}

func (r *rig) shown(secret string) *tls.Certificate {
	r.t.Helper()
	key := types.NamespacedName{}
	if secret != "" {
		key = types.NamespacedName{Namespace: "shop", Name: secret}
	}
	c, err := r.Certificate(host, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) is(secret string, want *corev1.Secret) bool {
	r.t.Helper()
	pair := authority.PairOf(want)
	c, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.shown(secret).Leaf.Equal(c.Leaf)
}

func follow(names ...string) map[types.NamespacedName]struct{} {
	out := map[types.NamespacedName]struct{}{}
	for _, n := range names {
		out[types.NamespacedName{Namespace: "shop", Name: n}] = struct{}{}
	}
	return out
}

func TestAHostWithoutASecretHasACertificateOfItsOwn(t *testing.T) {
	r := newRig(t)
	first := r.shown("")
	if err := first.Leaf.VerifyHostname(host); err != nil {
		t.Error(err)
	}
	if !r.shown("").Leaf.Equal(first.Leaf) {
		t.Error("it is made anew for each client")
	}
}

func TestAnotherAuthoritySignsAnew(t *testing.T) {
	r := newRig(t)
	first := r.shown("")
	if err := r.client.CoreV1().Secrets("system").Delete(t.Context(), "ca", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := r.keeper.Observe(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if r.shown("").Leaf.Equal(first.Leaf) {
		t.Error("the former authority's certificate is still shown")
	}
}

func TestMarkedSecretsComeAndGo(t *testing.T) {
	r := newRig(t)
	events := r.Marked()
	one, two := r.secret("one", host, true), r.secret("one", host, true)
	events.OnAdd(one, true)
	if !r.is("one", one) {
		t.Error("what was added is not shown")
	}
	events.OnUpdate(one, two)
	if !r.is("one", two) {
		t.Error("what took its place is not shown")
	}
	broken := two.DeepCopy()
	broken.Data["tls.key"] = one.Data["tls.key"]
	events.OnUpdate(two, broken)
	if !r.is("one", two) {
		t.Error("what cannot be read took the place of what can")
	}
	events.OnDelete(cache.DeletedFinalStateUnknown{Key: "shop/one", Obj: broken})
	if r.is("one", two) {
		t.Error("what was deleted is still shown")
	}
}

func TestNamedSecretsAreFollowedWhileTheyAreNamed(t *testing.T) {
	r := newRig(t)
	secrets := r.client.CoreV1().Secrets("shop")
	mine := r.secret("mine", host, false)
	if _, err := secrets.Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if r.is("mine", mine) {
		t.Fatal("a Secret nobody names is read")
	}
	r.Follow(t.Context(), follow("mine"))
	if !r.is("mine", mine) {
		t.Fatal("it is not shown when Follow returns")
	}
	next := r.secret("mine", host, false)
	if _, err := secrets.Update(t.Context(), next, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rotated pair", func() bool { return r.is("mine", next) })
	if err := secrets.Delete(t.Context(), "mine", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return !r.is("mine", next) })
	r.Follow(t.Context(), follow())
	if _, err := secrets.Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if r.is("mine", mine) {
		t.Error("a Secret that is named no more is still followed")
	}
}

func TestAMissingSecretHoldsNobodyUp(t *testing.T) {
	r := newRig(t)
	began := time.Now()
	r.Follow(t.Context(), follow("missing"))
	if took := time.Since(began); took > time.Second {
		t.Errorf("waited %s for what is not there", took)
	}
	late := r.secret("missing", host, false)
	if _, err := r.client.CoreV1().Secrets("shop").Create(t.Context(), late, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Secret that came late", func() bool { return r.is("missing", late) })
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 200 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not seen", what)
}

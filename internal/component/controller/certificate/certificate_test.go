package certificate

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientfake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/authority"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

var (
	key = types.NamespacedName{Namespace: "shop", Name: "route-u"}
	ca  = types.NamespacedName{Namespace: "system", Name: "ca"}
)

type world struct {
	*Reconciler
	typed *clientfake.Clientset // where the authority rests
}

// cached reads only Secrets with the mark, as the manager's cache does.
type cached struct{ client.Client }

func (c cached) Get(ctx context.Context, k types.NamespacedName, o client.Object, opts ...client.GetOption) error {
	if err := c.Client.Get(ctx, k, o, opts...); err != nil {
		return err
	}
	if o.GetLabels()[netapi.CertificateUIDLabelKey] == "" {
		return c.Client.Get(ctx, types.NamespacedName{Name: "not-there"}, o)
	}
	return nil
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{typed: clientfake.NewClientset()}
	keeper, err := authority.Open(t.Context(), authority.KeeperConfig{Client: w.typed, Secret: ca, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objects...).WithStatusSubresource(&netv1alpha1.Certificate{}).Build()
	w.Reconciler = &Reconciler{
		client: c, secrets: cached{c}, live: c, events: events.NewFakeRecorder(50), settings: settings.Fixed(s), authority: keeper,
		peers: func() error { return nil }, now: time.Now, log: slog.New(slog.DiscardHandler),
	}
	return w
}

// reconcile goes on until nothing changes, as events would have it, and returns what is there then.
func (w *world) reconcile(t *testing.T) (*netv1alpha1.Certificate, *corev1.Secret, time.Duration) {
	t.Helper()
	var again time.Duration
	for range 3 {
		result, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
		if err != nil {
			t.Fatal(err)
		}
		again = result.RequeueAfter
	}
	c, secret := &netv1alpha1.Certificate{}, &corev1.Secret{}
	err := errors.Join(w.client.Get(t.Context(), key, c), client.IgnoreNotFound(w.client.Get(t.Context(), key, secret)))
	if err != nil {
		t.Fatal(err)
	}
	return c, secret, again
}

func TestACertificateIsSignedAndRenewed(t *testing.T) {
	w := newWorld(t, wanted(certificate.Class))
	c, secret, again := w.reconcile(t)
	if !c.IsReady() || secret.Type != corev1.SecretTypeTLS || secret.Labels[netapi.CertificateUIDLabelKey] != "cu" || !metav1.IsControlledBy(secret, c) {
		t.Fatalf("certificate %s, secret %+v", said(c), secret.ObjectMeta)
	}
	if again <= 0 || again > recheck || time.Until(c.Status.NotAfter.Time) < 24*time.Hour {
		t.Errorf("looks again in %s, ends %s", again, c.Status.NotAfter)
	}
	first := string(secret.Data["tls.crt"])
	if _, same, _ := w.reconcile(t); string(same.Data["tls.crt"]) != first {
		t.Error("signed again without need")
	}
	w.now = func() time.Time { return c.Status.NotAfter.Add(-time.Hour) }
	if _, renewed, _ := w.reconcile(t); string(renewed.Data["tls.crt"]) == first {
		t.Error("not renewed before its end")
	}
}

func TestAnotherAuthorityMeansAnotherCertificate(t *testing.T) {
	w := newWorld(t, wanted(certificate.Class))
	_, before, _ := w.reconcile(t)
	if err := w.typed.CoreV1().Secrets(ca.Namespace).Delete(t.Context(), ca.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Reconcile(t.Context(), ctrl.Request{NamespacedName: ca}); err != nil {
		t.Fatal(err)
	}
	c, after, _ := w.reconcile(t)
	if string(after.Data["ca.crt"]) == string(before.Data["ca.crt"]) || !c.IsReady() {
		t.Errorf("after the authority was deleted: %s", said(c))
	}
}

func TestASecretOfSomebodyElsesIsNotTouched(t *testing.T) {
	theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace}, Data: map[string][]byte{"a": []byte("b")}}
	c, secret, _ := newWorld(t, wanted(certificate.Class), theirs).reconcile(t)
	if said(c) != "False NotOwned" || string(secret.Data["a"]) != "b" || len(secret.Data) != 1 {
		t.Errorf("%s, %v", said(c), secret.Data)
	}
}

func TestOtherClassesAreLeftAlone(t *testing.T) {
	c, secret, _ := newWorld(t, wanted("somebody.else")).reconcile(t)
	if said(c) != "nothing" || len(secret.Data) > 0 {
		t.Errorf("%s, %v", said(c), secret.Data)
	}
}

package admission_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"ebb.dev/ebb/internal/component/admission"
)

func TestServeIsKnownByItsBundleAndEnds(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config, bundle, err := admission.Certificate(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- admission.Serve(ctx, l, config, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "ok")
		}), slog.New(slog.DiscardHandler))
	}()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		t.Fatal("the bundle holds no certificate")
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	res, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWebhooksFailClosedWithoutSideEffects(t *testing.T) {
	count := 0
	for _, o := range admission.Webhooks(admission.ByURL("127.0.0.1:9443", []byte("ca"))) {
		switch w := o.(type) {
		case *admissionregistrationv1.MutatingWebhookConfiguration:
			for _, h := range w.Webhooks {
				check(t, h.Name, h.FailurePolicy, h.SideEffects, h.ClientConfig)
				count++
			}
		case *admissionregistrationv1.ValidatingWebhookConfiguration:
			for _, h := range w.Webhooks {
				check(t, h.Name, h.FailurePolicy, h.SideEffects, h.ClientConfig)
				count++
			}
		}
	}
	if count != 12 {
		t.Errorf("%d webhooks, want 12", count)
	}
	way := admission.ByService("knative-serving", "webhook", nil)("/x")
	if way.Service == nil || *way.Service.Path != "/x" || way.URL != nil {
		t.Errorf("by service: %+v", way)
	}
}

func check(t *testing.T, name string, policy *admissionregistrationv1.FailurePolicyType, effects *admissionregistrationv1.SideEffectClass, to admissionregistrationv1.WebhookClientConfig) {
	t.Helper()
	if *policy != admissionregistrationv1.Fail || *effects != admissionregistrationv1.SideEffectClassNone {
		t.Errorf("%s: policy %s, side effects %s", name, *policy, *effects)
	}
	if to.URL == nil || len(to.CABundle) == 0 {
		t.Errorf("%s leads to %+v", name, to)
	}
}

package settings_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: settings.Namespace}, Data: data}
}

// observability is config-observability with pairs of keys and values.
func observability(pairs ...string) *corev1.ConfigMap {
	data := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		data[pair[0]] = pair[1]
	}
	return configMap("config-observability", data)
}

func TestDefaultsAreUpstreams(t *testing.T) {
	s, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Autoscaler.StableWindow != time.Minute || s.Autoscaler.InitialScale != 1 || s.Autoscaler.TargetBurstCapacity != 211 {
		t.Errorf("autoscaler %+v", s.Autoscaler)
	}
	if s.Defaults.RevisionTimeoutSeconds != 300 || s.Deployment.ProgressDeadline != 10*time.Minute {
		t.Errorf("timeout %d, deadline %s", s.Defaults.RevisionTimeoutSeconds, s.Deployment.ProgressDeadline)
	}
	if !s.Deployment.RegistriesSkippingTagResolving.Has("ko.local") || s.GC.MinNonActiveRevisions != 20 {
		t.Errorf("deployment %+v, gc %+v", s.Deployment, s.GC)
	}
	if s.Network.DefaultExternalScheme != "http" || s.Observability.LogURL("x") != "" {
		t.Errorf("network %+v, observability %+v", s.Network, s.Observability)
	}
}

func TestDomainOfLastResort(t *testing.T) {
	tests := map[string]struct {
		data map[string]string
		want string
	}{
		"nothing is set":             {nil, "localhost"},
		"one for all":                {map[string]string{"example.com": ""}, "example.com"},
		"one for some":               {map[string]string{"example.com": "selector: {app: x}"}, "localhost"},
		"the cluster's own, by name": {map[string]string{"svc.cluster.local": ""}, "svc.cluster.local"},
	}
	for name, tt := range tests {
		s, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{"config-domain": configMap("config-domain", tt.data)})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Domain.LookupDomainForLabels(nil); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestIngressClass(t *testing.T) {
	const other = "other.ingress.networking.knative.dev"
	tests := map[string]struct {
		data map[string]string
		want string
	}{
		"the gateway's own":   {nil, settings.IngressClass},
		"another":             {map[string]string{"ingress-class": other}, other},
		"another, by old key": {map[string]string{"ingress.class": other}, other},
	}
	for name, tt := range tests {
		s, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{"config-network": configMap("config-network", tt.data)})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Network.DefaultIngressClass; got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestCertificates(t *testing.T) {
	none, err := settings.Parse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	upstreams := settings.Issuer{Kind: "ClusterIssuer", Name: "knative-selfsigned-issuer"}
	if none.Network.DefaultCertificateClass != certificate.Class || none.CertManager.External != upstreams {
		t.Errorf("class %s, issuer %+v", none.Network.DefaultCertificateClass, none.CertManager.External)
	}
	set, err := settings.Parse(t.Context(), map[string]*corev1.ConfigMap{
		"config-network":     configMap("config-network", map[string]string{"certificate-class": "cert-manager.certificate.networking.knative.dev"}),
		"config-certmanager": configMap("config-certmanager", map[string]string{"issuerRef": "kind: ClusterIssuer\nname: letsencrypt"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if set.Network.DefaultCertificateClass != "cert-manager.certificate.networking.knative.dev" ||
		set.CertManager.External.Name != "letsencrypt" || set.CertManager.ClusterLocal != upstreams {
		t.Errorf("class %s, issuers %+v", set.Network.DefaultCertificateClass, set.CertManager)
	}
	if err := settings.Check(t.Context(), configMap("config-certmanager", map[string]string{"issuerRef": "["})); err == nil {
		t.Error("an issuer that cannot be read is taken")
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		cm *corev1.ConfigMap
		ok bool
	}{
		"an empty one":                           {configMap("config-deployment", nil), true},
		"a bad duration":                         {configMap("config-deployment", map[string]string{"progress-deadline": "soon"}), false},
		"a bad number":                           {configMap("config-gc", map[string]string{"min-non-active-revisions": "many"}), false},
		"a bad flag":                             {configMap("config-observability", map[string]string{"logging.enable-request-log": "perhaps"}), false},
		"no metrics, no traces":                  {observability("metrics-protocol", "none", "tracing-protocol", "none"), true},
		"an unknown metrics protocol":            {observability("metrics-protocol", "statsd"), false},
		"an unknown protocol of request metrics": {observability("request-metrics-protocol", "opencensus"), false},
		"an unknown tracing protocol":            {observability("tracing-protocol", "zipkin"), false},
		"prometheus at upstream's port":          {observability("metrics-protocol", "prometheus"), true},
		"prometheus at another port":             {observability("metrics-protocol", "prometheus", "metrics-endpoint", ":9099"), true},
		"prometheus on every address":            {observability("metrics-protocol", "prometheus", "metrics-endpoint", "0.0.0.0:9090"), true},
		"prometheus on loopback":                 {observability("metrics-protocol", "prometheus", "metrics-endpoint", "127.0.0.1:9090"), true},
		"prometheus on a foreign address":        {observability("metrics-protocol", "prometheus", "metrics-endpoint", "192.0.2.1:9090"), false},
		"prometheus on a low port":               {observability("metrics-protocol", "prometheus", "metrics-endpoint", ":80"), false},
		"a collector by URL":                     {observability("metrics-protocol", "grpc", "metrics-endpoint", "http://collector.observability.svc:4317"), true},
		"a collector by host and port":           {observability("metrics-protocol", "grpc", "metrics-endpoint", "collector.observability.svc:4317"), true},
		"a protocol without a collector":         {observability("metrics-protocol", "http/protobuf"), false},
		"a collector that is no URL":             {observability("tracing-protocol", "grpc", "tracing-endpoint", "10.0.0.1:4317"), false},
		"a collector without a protocol":         {observability("tracing-endpoint", "http://collector:4317"), false},
		"an interval":                            {observability("metrics-protocol", "grpc", "metrics-endpoint", "http://c:4317", "metrics-export-interval", "30s"), true},
		"a negative interval":                    {observability("metrics-export-interval", "-1s"), false},
		"a sampling rate above one":              {observability("tracing-sampling-rate", "1.1"), false},
		"a sampling rate that is no number":      {observability("tracing-sampling-rate", "often"), false},
		"profiling that is neither":              {observability("runtime-profiling", "sometimes"), false},
		"a request log by default's template":    {observability("logging.enable-request-log", "true"), true},
		"a request log without a template":       {observability("logging.enable-request-log", "true", "logging.request-log-template", ""), false},
		"a template that does not parse":         {observability("logging.request-log-template", "{{.Request"), false},
		"one of another program":                 {configMap("mine", map[string]string{"x": "y"}), true},
	}
	for name, tt := range tests {
		if err := settings.Check(t.Context(), tt.cm); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := []string{
		"config-autoscaler", "config-certmanager", "config-defaults", "config-deployment", "config-domain", "config-features",
		"config-gc", "config-network", "config-observability",
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(settings.Names()))); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestStoreFollowsConfigMaps(t *testing.T) {
	client := fake.NewClientset(configMap("config-autoscaler", map[string]string{"stable-window": "30s"}))
	s, err := settings.Open(t.Context(), client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Current().Autoscaler.StableWindow; got != 30*time.Second {
		t.Fatalf("window %s at first, want 30s", got)
	}
	changed := make(chan struct{}, 10)
	s.Subscribe(func() { changed <- struct{}{} })
	put := func(name string, data map[string]string) {
		t.Helper()
		maps := client.CoreV1().ConfigMaps(settings.Namespace)
		_, err := maps.Update(t.Context(), configMap(name, data), metav1.UpdateOptions{})
		if err != nil {
			_, err = maps.Create(t.Context(), configMap(name, data), metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("config-autoscaler", map[string]string{"stable-window": "45s"})
	<-changed
	if got := s.Current().Autoscaler.StableWindow; got != 45*time.Second {
		t.Errorf("window %s after the change, want 45s", got)
	}
	put("config-autoscaler", map[string]string{"stable-window": "never"})
	put("config-domain", map[string]string{"example.com": ""})
	<-changed
	if got := s.Current(); got.Autoscaler.StableWindow != 45*time.Second || got.Domain.LookupDomainForLabels(nil) != "example.com" {
		t.Errorf("window %s, domain %s; want the last good window and the new domain", got.Autoscaler.StableWindow, got.Domain.LookupDomainForLabels(nil))
	}
	if err := client.CoreV1().ConfigMaps(settings.Namespace).Delete(t.Context(), "config-domain", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if got := s.Current().Domain.LookupDomainForLabels(nil); got != settings.DefaultDomain {
		t.Errorf("domain %s after deletion, want %s", got, settings.DefaultDomain)
	}
}

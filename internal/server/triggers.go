package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/adapter/credential"
	safes "ebb.dev/ebb/internal/adapter/credential/all"
	"ebb.dev/ebb/internal/adapter/credential/vault"
	"ebb.dev/ebb/internal/adapter/trigger"
	triggers "ebb.dev/ebb/internal/adapter/trigger/all"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/adapter/trigger/schema"
	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/controller/census"
	"ebb.dev/ebb/internal/component/controller/cloudeventsource"
	"ebb.dev/ebb/internal/component/controller/emit"
	"ebb.dev/ebb/internal/component/controller/target"
	"ebb.dev/ebb/internal/component/jobs"
	"ebb.dev/ebb/internal/component/metricsapi/external"
	"ebb.dev/ebb/internal/component/scaler"
	work "ebb.dev/ebb/internal/domain/jobs"
	"ebb.dev/ebb/internal/domain/render/horizontal"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/object"
	"ebb.dev/ebb/internal/platform/kube/workload"
	"ebb.dev/ebb/internal/platform/telemetry/export"
)

// triggersDialPatience bounds how long connecting to a source of work may take.
const triggersDialPatience = 5 * time.Second

// useTriggers makes what scales by triggers, for the controllers that c is for.
func (s *Server) useTriggers(ctx context.Context, manager ctrl.Manager, c *controller.Config) error {
	log := s.log.With("part", "triggers")
	lifetime, end := context.WithCancel(context.WithoutCancel(ctx))
	s.onStop("triggers", func(context.Context) error { end(); return nil })
	anything, err := dynamic.NewForConfig(kube.Unlimited(s.rest))
	if err != nil {
		return fmt.Errorf("making a client of all kinds: %w", err)
	}
	store := object.New(lifetime, anything, log)
	cluster, err := object.NewCluster(store, s.informers.Core().V1().Pods(), s.informers.Core().V1().Nodes(), s.informers.Discovery().V1().EndpointSlices())
	if err != nil {
		return err
	}
	dial := s.dialSources()
	roots, err := authorities(s.options.CADir)
	if err != nil {
		return err
	}
	keda := &s.options.Keda
	trust := &tls.Config{MinVersion: cmp.Or(keda.MinTLS, tls.VersionTLS12), CipherSuites: keda.Ciphers, RootCAs: roots}
	tokens, filter, err := policies(&s.options)
	if err != nil {
		return err
	}
	known, err := safes.New(safes.Options{Dial: dial, TLS: trust, Tokens: tokens, VaultFilter: filter, Log: log})
	if err != nil {
		return err
	}
	credentials, err := credential.New(store, s.client.CoreV1(), credential.Options{
		ClusterObjectNamespace: keda.ClusterObjects, RestrictSecretAccess: keda.RestrictSecrets, Tokens: tokens,
		Safes: known.Safes, Files: s.options.AuthFiles, Log: log,
	})
	if err != nil {
		return err
	}
	sources, err := cloudeventsource.New(lifetime, cloudeventsource.Config{
		Transport:   &http.Transport{DialContext: dial, TLSClientConfig: trust.Clone(), Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true},
		Credentials: credentials, AzureToken: known.AzureToken, Registerer: s.keda.Operator, Log: log,
	})
	if err != nil {
		return err
	}
	scales, err := target.New(ctx, manager, s.autoscaler, s.replicas)
	if err != nil {
		return err
	}
	emitter := emit.New(manager, sources)
	c.Targets, c.Emitter, c.More, c.Watches = scales, emitter, append(c.More, sources.Setup), keda.Watches
	var maker *jobs.Engine
	engine := scaler.New(scaler.Config{
		Builders: triggers.Builders(), Known: schema.Known, Credentials: credentials,
		Environment: trigger.Environment{Dial: dial, TLS: trust, NoKeepAlive: keda.NoKeepAlive, Objects: cluster, Routes: s.routes, Shared: endpoint.NewPool(lifetime), Requests: s.keda.Requests, Log: log},
		Timeout:     keda.Timeout,
		Targets:     targets{scales, workload.NewReader(anything, manager.GetRESTMapper())},
		Tell: func(so *kedav1alpha1.ScaledObject, eventType, reason, message string) {
			emitter.Emit(so, eventType, "", reason, message) // decisions are no CloudEvents of KEDA
		},
		Starting: s.waking,
		Work:     func(key types.NamespacedName, seen work.Observation) { maker.Observe(key, seen) },
		Log:      log,
	})
	if maker, err = jobs.New(jobs.Config{
		Client: s.client, Observer: engine.Jobs(), Events: manager.GetEventRecorder(emit.Reporter), Version: horizontal.Version,
		Registerer: s.keda.Operator, Log: log,
	}); err != nil {
		return err
	}
	s.keda.Operator.MustRegister(engine, census.New(lifetime, manager.GetClient()))
	c.Engine, c.Jobs = engine, maker
	var values external.Values = engine
	s.triggered.Store(&values)
	s.scaled, s.jobs = engine, maker
	s.background("replicas", func(ctx context.Context) error { return s.replicas.Run(ctx, s.client) })
	s.background("triggers' sources", engine.Run)
	s.background("jobs", maker.Run)
	return nil
}

// waking closes the gate until the first replicas of a ScaledObject are written, and a moment longer for
// others that start by the same event.
func (s *Server) waking(of types.NamespacedName) (done func()) {
	const atMost, longer = 2 * time.Second, 100 * time.Millisecond
	key := types.NamespacedName{Namespace: of.Namespace, Name: "scaledobject/" + of.Name}
	s.gate.Begin(key, atMost)
	return func() { time.AfterFunc(longer, func() { s.gate.End(key) }) }
}

// How tokens of service accounts are guarded.
const (
	// TokensEnforced has tokens be made for approved audiences only.
	TokensEnforced = "enforce-audience"
	// TokensLegacy has them be made, and sent, for whoever asks: who gets one may use Kubernetes' API.
	TokensLegacy = "legacy"
)

// policies say which tokens may be made, and where they may be sent.
func policies(o *Options) (credential.TokenPolicy, vault.Filter, error) {
	tokens, filter := credential.TokenPolicy{Legacy: o.TokenMode == TokensLegacy, Expiry: o.Keda.TokenExpiry}, vault.Filter{}
	if o.TokenMode != "" && o.TokenMode != TokensLegacy && o.TokenMode != TokensEnforced {
		return tokens, filter, fmt.Errorf("reading --service-account-token-mode: %q is neither %s nor %s", o.TokenMode, TokensEnforced, TokensLegacy)
	}
	var err error
	if o.Keda.TokenAudiences != "" {
		if tokens.Audiences, err = credential.ParseAudiences(o.Keda.TokenAudiences); err != nil {
			return tokens, filter, err
		}
	}
	if o.Keda.OutboundFilter != "" {
		filter, err = vault.ParseFilter(o.Keda.OutboundFilter)
	}
	return tokens, filter, err
}

// authorities are the system's and those of a folder of PEM files; nil where there is no folder.
func authorities(folder string) (*x509.CertPool, error) {
	if folder == "" {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's authorities: %w", err)
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("reading --ca-dir: %w", err)
	}
	for _, file := range files {
		name := filepath.Join(folder, file.Name())
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			continue // a mounted ConfigMap has folders beside its files
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading --ca-dir: %w", err)
		}
		if !roots.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading --ca-dir: there is no certificate in PEM form in %s", name)
		}
	}
	return roots, nil
}

// dialSources connects to sources of work, by names as a pod of KEDA's would look them up.
func (s *Server) dialSources() func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &export.Dialer{
		Inside: s.net.DialContext, DNS: netip.AddrPortFrom(s.id.DNSIP(), 53), Domain: clusterDomain, Namespace: credential.DefaultNamespace,
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		limit, cancel := context.WithTimeout(ctx, triggersDialPatience)
		defer cancel()
		return dialer.DialContext(limit, network, addr)
	}
}

// useInformers readies what all parts follow together.
func (s *Server) useInformers() {
	s.informers = informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithTransform(withoutManagedFields))
}

// targets are what the API has a scale subresource for, and their pods' templates.
type targets struct {
	*target.Scales
	templates *workload.Reader
}

// Template implements scaler.Targets.
func (t targets) Template(ctx context.Context, object client.Object) (*corev1.PodTemplateSpec, string, error) {
	switch o := object.(type) {
	case *kedav1alpha1.ScaledObject:
		if o.Status.ScaleTargetGVKR == nil {
			return nil, "", nil
		}
		ref := o.Spec.ScaleTargetRef
		return t.templates.Template(ctx, o.Namespace, o.Status.ScaleTargetGVKR.GroupVersionKind(), ref.Name, ref.EnvSourceContainerName)
	case *kedav1alpha1.ScaledJob:
		return templateOf(o)
	default:
		return nil, "", fmt.Errorf("finding the pods' template of %T: it is no object with triggers", object)
	}
}

func templateOf(job *kedav1alpha1.ScaledJob) (*corev1.PodTemplateSpec, string, error) {
	if job.Spec.JobTargetRef == nil || len(job.Spec.JobTargetRef.Template.Spec.Containers) == 0 {
		return nil, "", nil
	}
	template := &job.Spec.JobTargetRef.Template
	container := job.Spec.EnvSourceContainerName
	if container == "" {
		container = template.Spec.Containers[0].Name
	}
	return template, container, nil
}

package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/admission"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/webhook"
	clientgoinformers "k8s.io/client-go/informers"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	kubeapiserveradmission "k8s.io/kubernetes/pkg/kubeapiserver/admission"
)

// apiServer is kube-apiserver with its aggregation and extension layers.
type apiServer struct {
	aggregator *aggregatorapiserver.APIAggregator
}

func newAPIServer(ctx context.Context, c *Cluster, listener net.Listener) (*apiServer, error) {
	opts, err := apiServerOptions(c, listener).Complete(ctx)
	if err != nil {
		return nil, fmt.Errorf("completing API server options: %w", err)
	}
	if errs := opts.Validate(); len(errs) != 0 {
		return nil, fmt.Errorf("checking API server options: %w", errs[0])
	}
	cfg, err := apiServerConfig(opts, c)
	if err != nil {
		return nil, fmt.Errorf("configuring API server: %w", err)
	}
	completed, err := cfg.Complete()
	if err != nil {
		return nil, fmt.Errorf("configuring API server: %w", err)
	}
	chain, err := app.CreateServerChain(completed)
	if err != nil {
		return nil, fmt.Errorf("building API server: %w", err)
	}
	return &apiServer{aggregator: chain}, nil
}

func (s *apiServer) run(ctx context.Context) error {
	prepared, err := s.aggregator.PrepareRun()
	if err != nil {
		return fmt.Errorf("preparing API server: %w", err)
	}
	return prepared.Run(ctx)
}

// readyEvery is how often readiness is looked at while starting. The question is put to the handler
// in process and costs microseconds.
const readyEvery = 10 * time.Millisecond

// late are checks that pass only a second after the API could be used, since they poll: they write
// the default roles and priority classes, which clients with all rights need not wait for.
var late = []string{"poststarthook/rbac/bootstrap-roles", "poststarthook/scheduling/bootstrap-system-priority-classes"}

// waitUsable returns when /readyz passes but for what is late.
func (s *apiServer) waitUsable(ctx context.Context) error {
	query := "/readyz?exclude=" + strings.Join(late, "&exclude=")
	return s.waitOK(ctx, query)
}

// waitReady returns when /readyz passes whole.
func (s *apiServer) waitReady(ctx context.Context) error { return s.waitOK(ctx, "/readyz") }

func (s *apiServer) waitOK(ctx context.Context, path string) error {
	t := time.NewTicker(readyEvery)
	defer t.Stop()
	for {
		if s.probe(ctx, path).Code == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

func (s *apiServer) probe(ctx context.Context, path string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	s.aggregator.GenericAPIServer.UnprotectedHandler().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
	return rec
}

// pending names the checks that do not pass yet.
func (s *apiServer) pending(ctx context.Context) string {
	var failing []string
	for line := range strings.Lines(s.probe(context.WithoutCancel(ctx), "/readyz?verbose").Body.String()) {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ = strings.Cut(name, " ")
			failing = append(failing, name)
		}
	}
	return strings.Join(failing, ", ")
}

// apiServerConfig joins the three layers as kube-apiserver does, with our own way to reach Services.
func apiServerConfig(opts options.CompletedOptions, c *Cluster) (*app.Config, error) {
	generic, informers, storage, err := controlplaneapiserver.BuildGenericConfig(
		opts.CompletedOptions,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme},
		controlplane.DefaultAPIResourceConfigSource(),
		generatedopenapi.GetOpenAPIDefinitions,
	)
	if err != nil {
		return nil, err
	}
	resolver := c.locals.resolver(informers, generic.LoopbackClientConfig.Host)
	kube, plugins, err := kubeConfig(opts, kubeParts{generic, informers, storage, resolver, c.dial})
	if err != nil {
		return nil, err
	}
	cp := &kube.ControlPlane
	authInfo := webhook.NewDefaultAuthenticationInfoResolverWrapper(cp.ProxyTransport, nil, cp.Generic.LoopbackClientConfig, cp.Generic.TracerProvider)
	extensions, err := controlplaneapiserver.CreateAPIExtensionsConfig(*cp.Generic, cp.VersionedInformers, plugins, opts.CompletedOptions, opts.MasterCount, resolver, authInfo)
	if err != nil {
		return nil, err
	}
	aggregator, err := controlplaneapiserver.CreateAggregatorConfig(*cp.Generic, opts.CompletedOptions, cp.VersionedInformers, resolver, cp.ProxyTransport, cp.Extra.PeerProxy, plugins)
	if err != nil {
		return nil, err
	}
	return &app.Config{Options: opts, Aggregator: aggregator, KubeAPIs: kube, ApiExtensions: extensions}, nil
}

// kubeParts is what the layer of the built-in APIs is made from.
type kubeParts struct {
	generic   *genericapiserver.Config
	informers clientgoinformers.SharedInformerFactory
	storage   *serverstorage.DefaultStorageFactory
	resolver  aggregatorapiserver.ServiceResolver
	dial      utilnet.DialFunc
}

func kubeConfig(opts options.CompletedOptions, p kubeParts) (*controlplane.Config, []admission.PluginInitializer, error) {
	capabilities.Setup(opts.AllowPrivileged, opts.MaxConnectionBytesPerSec)
	initializers, err := (&kubeapiserveradmission.Config{}).New()
	if err != nil {
		return nil, nil, fmt.Errorf("preparing admission: %w", err)
	}
	cp, plugins, err := controlplaneapiserver.CreateConfig(opts.CompletedOptions, p.generic, p.informers, p.storage, p.resolver, initializers)
	if err != nil {
		return nil, nil, err
	}
	// Webhooks, aggregated APIs, pods and Services are all reached through this transport's dialer,
	// which is looked up when a connection is made.
	cp.ProxyTransport.DialContext = p.dial
	kubelet := opts.KubeletConfig
	kubelet.Lookup = func(egressselector.NetworkContext) (utilnet.DialFunc, error) { return p.dial, nil }
	return &controlplane.Config{
		ControlPlane: *cp,
		Extra: controlplane.Extra{
			KubeletClientConfig:       kubelet,
			ServiceIPRange:            opts.PrimaryServiceClusterIPRange,
			APIServerServiceIP:        opts.APIServerServiceIP,
			SecondaryServiceIPRange:   opts.SecondaryServiceClusterIPRange,
			APIServerServicePort:      443,
			ServiceNodePortRange:      opts.ServiceNodePortRange,
			KubernetesServiceNodePort: opts.KubernetesServiceNodePort,
			EndpointReconcilerType:    reconcilers.Type(opts.EndpointReconcilerType),
			MasterCount:               opts.MasterCount,
		},
	}, plugins, nil
}

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// unused are controllers that have nothing to do here: they serve clouds, volumes that attach to
// machines, devices with drivers, and clusters of several API servers. Those that poll would also cost
// idle time, and all of them memory.
var unused = []string{
	"node-ipam-controller", "node-route-controller", "service-lb-controller", "cloud-node-lifecycle-controller",
	"persistentvolume-attach-detach-controller", "persistentvolume-expander-controller",
	"ttl-controller", "storageversion-garbage-collector-controller",
	"resourceclaim-controller", "device-taint-eviction-controller", "resourcepoolstatusrequest-controller",
}

// runControllers runs kube-controller-manager until ctx ends.
func (c *Cluster) runControllers(ctx context.Context) error {
	s, err := c.controllerOptions()
	if err != nil {
		return err
	}
	cfg, err := s.Config(ctx, app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	if err != nil {
		return fmt.Errorf("configuring controllers: %w", err)
	}
	kubeconfig := c.clientConfig(c.creds.controllers)
	kubeconfig.ContentConfig = rest.ContentConfig{ContentType: s.Generic.ClientConnection.ContentType, AcceptContentTypes: s.Generic.ClientConnection.AcceptContentTypes}
	kubeconfig.Wrap(healthy)
	kubeconfig.Wrap(c.knowing)
	cfg.Kubeconfig = kubeconfig
	if cfg.Client, err = kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(kubeconfig), "kube-controller-manager")); err != nil {
		return fmt.Errorf("making the controllers' client: %w", err)
	}
	defer configz.Delete(app.ConfigzName)
	return app.Run(ctx, cfg.Complete())
}

// healthy answers /healthz without asking. Controllers look there once before they start and, where
// default roles are still being written, would look again only a second later.
func healthy(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path != "/healthz" {
			return next.RoundTrip(r)
		}
		return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: r}, nil
	})
}

// collector is in the user agent of the garbage collector.
const collector = "generic-garbage-collector"

// knowing has the garbage collector wait for the kinds the cluster is to have: it looks for kinds when
// it starts, and then only twice a minute, during which nothing below an object of a kind it does not
// know is deleted.
func (c *Cluster) knowing(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if c.cfg.Kinds != nil && strings.HasSuffix(r.URL.Path, "/apis") && strings.Contains(r.UserAgent(), collector) {
			select {
			case <-c.cfg.Kinds:
			case <-r.Context().Done():
			}
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// controllerOptions is the command line kube-controller-manager would be given.
func (c *Cluster) controllerOptions() (*options.KubeControllerManagerOptions, error) {
	s, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("preparing controllers: %w", err)
	}
	s.Master = "https://" + reachable(c.cfg.APIAddress) // replaced by our own client configuration
	s.SecureServing.BindPort = 0                        // no listener
	s.Generic.LeaderElection.LeaderElect = false
	s.Generic.ClientConnection.QPS = -1
	for _, known := range app.KnownControllers() {
		for _, name := range unused {
			if known == name {
				s.Generic.Controllers = append(s.Generic.Controllers, "-"+name)
			}
		}
	}
	s.Generic.Controllers = append(s.Generic.Controllers, "*")
	s.ControllerShutdownTimeout = 5 * time.Second

	s.SAController.ServiceAccountKeyFile = c.files.tokenKey
	s.SAController.RootCAFile = c.files.ca.CertFile
	s.CSRSigningController.ClusterSigningCertFile = c.files.ca.CertFile
	s.CSRSigningController.ClusterSigningKeyFile = c.files.ca.KeyFile

	s.DeploymentController.ConcurrentDeploymentSyncs = 32
	s.ReplicaSetController.ConcurrentRSSyncs = 32
	s.EndpointSliceController.ConcurrentServiceEndpointSyncs = 16
	s.NamespaceController.ConcurrentNamespaceSyncs = 10
	return s, nil
}

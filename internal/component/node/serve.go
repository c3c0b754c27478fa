package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/virtual-kubelet/virtual-kubelet/node/nodeutil"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	v1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"ebb.dev/ebb/internal/component/node/kubeletapi"
	"ebb.dev/ebb/internal/component/node/stats"
)

// serve answers the kubelet API on the listener until ctx ends. Callers show a client certificate or
// a bearer token, and RBAC decides what they may.
func (n *Node) serve(ctx context.Context) error {
	c := n.config
	if c.Listen == nil {
		<-ctx.Done()
		return nil
	}
	if c.TLS == nil {
		return errors.New("serving the kubelet API: a TLS configuration is needed")
	}
	auth, err := nodeutil.WebhookAuth(c.Client, c.Name, func(w *nodeutil.WebhookAuthConfig) error {
		if len(c.ClientCA) == 0 {
			return nil
		}
		ca, err := dynamiccertificates.NewStaticCAContent("node-client-ca", c.ClientCA)
		w.AuthnConfig.ClientCertificateCAContentProvider = ca
		return err
	})
	if err != nil {
		return fmt.Errorf("preparing the kubelet API's authentication: %w", err)
	}
	secure := c.TLS.Clone()
	if secure.ClientAuth == tls.NoClientCert {
		secure.ClientAuth = tls.RequestClientCert // verified by the authenticator
	}
	if len(secure.NextProtos) == 0 {
		secure.NextProtos = []string{"http/1.1"} // streams are upgraded connections
	}
	server := &http.Server{
		Handler: nodeutil.WithAuth(auth, n.handlerOfAPI()), ReadHeaderTimeout: 10 * time.Second, TLSConfig: secure,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(tls.NewListener(c.Listen, secure)); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serving the kubelet API: %w", err)
	}
	return nil
}

func (n *Node) handlerOfAPI() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(counts{n})
	return kubeletapi.Handler(kubeletapi.Config{
		Source: source{n}, Summary: n.stats, Usage: stats.Usage{Collector: n.stats},
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), Log: n.config.Log,
	})
}

// Summary measures the node and its pods now.
func (n *Node) Summary(ctx context.Context) (*v1alpha1.Summary, error) { return n.stats.Summary(ctx) }

// counts are the kubelet's own gauges, taken when asked.
type counts struct{ n *Node }

var (
	runningPods       = prometheus.NewDesc("kubelet_running_pods", "Number of pods that have a running pod sandbox", nil, nil)
	runningContainers = prometheus.NewDesc("kubelet_running_containers", "Number of containers currently running", []string{"container_state"}, nil)
)

// Describe implements prometheus.Collector.
func (c counts) Describe(ch chan<- *prometheus.Desc) {
	ch <- runningPods
	ch <- runningContainers
}

// Collect implements prometheus.Collector.
func (c counts) Collect(ch chan<- prometheus.Metric) {
	pods, containers := 0, map[string]int{"running": 0}
	for _, m := range c.n.all() {
		s := m.Status()
		if s.PodIP != "" {
			pods++
		}
		for i := range s.ContainerStatuses {
			switch state := s.ContainerStatuses[i].State; {
			case state.Running != nil:
				containers["running"]++
			case state.Terminated != nil:
				containers["exited"]++
			default:
				containers["created"]++
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(runningPods, prometheus.GaugeValue, float64(pods))
	for state, count := range containers {
		ch <- prometheus.MustNewConstMetric(runningContainers, prometheus.GaugeValue, float64(count), state)
	}
}

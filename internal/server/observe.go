package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	discoveryac "k8s.io/client-go/applyconfigurations/discovery/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"ebb.dev/ebb/internal/component/cluster"
	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/component/gateway/requestlog"
	"ebb.dev/ebb/internal/component/metricsapi"
	"ebb.dev/ebb/internal/component/metricsapi/custom"
	"ebb.dev/ebb/internal/component/metricsapi/external"
	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
	"ebb.dev/ebb/internal/platform/telemetry/export"
	"ebb.dev/ebb/internal/platform/telemetry/keda"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// exportPatience is how long the last metrics and traces may take.
const exportPatience = 5 * time.Second

// observed is what ebb tells about the requests it carries.
type observed struct {
	control, requests series.Group // numbers, grouped as Knative's settings are
	exporter          *export.Exporter
	log               *requestlog.Log
	shelf             *requestlog.Shelf
}

// startObserving readies metrics, traces and the request log; what is done with them comes with the
// settings.
func (s *Server) startObserving(ctx context.Context) error {
	dialer := &export.Dialer{
		Inside: s.net.DialContext, DNS: netip.AddrPortFrom(s.id.DNSIP(), 53), Domain: clusterDomain, Namespace: settings.Namespace,
	}
	var err error
	s.observed.exporter, err = export.New(export.Config{
		Version: Version, Own: prometheus.Gatherers{s.metricsRegistry, s.keda.Operator, s.keda.Server, s.keda.Webhooks}, Control: &s.observed.control, Requests: &s.observed.requests,
		Dial: dialer.DialContext, Listen: s.listenForScrapers, Stream: s.options.Out, Log: s.log.With("part", "telemetry"),
	})
	if err != nil {
		return err
	}
	s.observed.shelf = requestlog.NewShelf(s.folder.RequestLog(), s.log.With("part", "gateway"))
	s.observed.log = requestlog.New(s.observed.shelf.Put, s.metricsRegistry)
	s.onStop("request log's file", func(context.Context) error { return s.observed.shelf.Close() })
	s.background("request log", s.observed.log.Run)
	return s.offerKeda(ctx)
}

// scraped is a Service by which scrapers in the cluster find metrics. It has no pods: it leads to the node.
type scraped struct {
	namespace, name string
	ports           []offered
}

// offered is a port of one of those Services, and where the node has it.
type offered struct {
	name     string
	port, at int32
}

// What KEDA's programs show is at the ports of their Services; the node has them side by side.
const (
	kedaMetricsPort = 8080
	operatorAt      = 9681
	serverAt        = 9682
	webhooksAt      = 9683
)

// scrapedServices lists them. The ports of the first are upstream's; nobody listens there unless
// config-observability says so.
func scrapedServices() []scraped {
	keda := func(name string, at int32) scraped {
		return scraped{kedaNamespace, name, []offered{{"metrics", kedaMetricsPort, at}}}
	}
	return []scraped{
		{systemNamespace, "telemetry", []offered{{"http-metrics", 9090, 9090}, {"http-usermetric", 9091, 9091}}},
		keda("keda-operator", operatorAt), keda("keda-metrics-apiserver", serverAt), keda("keda-admission-webhooks", webhooksAt),
	}
}

// applyScraped makes a Service.
func (s *Server) applyScraped(ctx context.Context, of scraped) error {
	labels := map[string]string{"app.kubernetes.io/name": of.name, "app.kubernetes.io/managed-by": kube.FieldOwner}
	spec := coreac.ServiceSpec()
	slice := discoveryac.EndpointSlice(of.name, of.namespace).WithLabels(labels).
		WithLabels(map[string]string{discoveryv1.LabelServiceName: of.name, discoveryv1.LabelManagedBy: kube.FieldOwner}).
		WithAddressType(discoveryv1.AddressTypeIPv4).
		WithEndpoints(discoveryac.Endpoint().WithAddresses(s.id.NodeIP().String()).
			WithConditions(discoveryac.EndpointConditions().WithReady(true)))
	for _, p := range of.ports {
		spec.WithPorts(port(p.name, p.port).WithTargetPort(intstr.FromInt32(p.at)))
		slice.WithPorts(discoveryac.EndpointPort().WithName(p.name).WithPort(p.at).WithProtocol(corev1.ProtocolTCP))
	}
	service := coreac.Service(of.name, of.namespace).WithLabels(labels).WithSpec(spec)
	if _, err := s.client.CoreV1().Services(of.namespace).Apply(ctx, service, owner); err != nil {
		return fmt.Errorf("applying service %s: %w", of.name, err)
	}
	if _, err := s.client.DiscoveryV1().EndpointSlices(of.namespace).Apply(ctx, slice, owner); err != nil {
		return fmt.Errorf("applying the endpoints of service %s: %w", of.name, err)
	}
	return nil
}

// offerKeda shows the metrics of KEDA's programs to the cluster.
func (s *Server) offerKeda(ctx context.Context) error {
	for at, registry := range map[int]prometheus.Gatherer{operatorAt: s.keda.Operator, serverAt: s.keda.Server, webhooksAt: s.keda.Webhooks} {
		listener, err := s.net.Listen(ctx, "tcp", net.JoinHostPort(s.id.NodeIP().String(), strconv.Itoa(at)))
		if err != nil {
			return fmt.Errorf("listening for scrapers: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", keda.Handler(registry))
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
		s.onStop("metrics", func(context.Context) error { return server.Close() }) // a scrape that breaks off is repeated
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				s.fail(fmt.Errorf("offering metrics: %w", err))
			}
		}()
	}
	return nil
}

// numbers are the groups as the gateway knows them.
func (o *observed) numbers() gateway.Numbers {
	return gateway.Numbers{Control: &o.control, Requests: &o.requests}
}

// listenForScrapers opens a port of ebb's node, or of this machine's loopback where that is asked for.
func (s *Server) listenForScrapers(ctx context.Context, addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("reading the address %q: %w", addr, err)
	}
	if host == "" {
		return s.net.Listen(ctx, "tcp", net.JoinHostPort(s.id.NodeIP().String(), port))
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%s is no address of loopback: metrics are offered nowhere else on this machine", host)
	}
	return plainTCP().Listen(ctx, "tcp", addr)
}

// observe does what config-observability says, now and after each change of it.
func (s *Server) observe(current *settings.Store) {
	changed := make(chan struct{}, 1)
	current.Subscribe(func() {
		select {
		case changed <- struct{}{}:
		default: // the change that waits already will see this one, too
		}
	})
	s.background("telemetry", func(ctx context.Context) error {
		for {
			s.applyObservability(ctx, current.Current().Observability)
			select {
			case <-changed:
			case <-ctx.Done():
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportPatience)
				defer cancel()
				return s.observed.exporter.Close(last)
			}
		}
	})
}

func (s *Server) applyObservability(ctx context.Context, o *settings.Observability) {
	log := requestlog.Settings{On: o.EnableRequestLog, Probes: o.EnableProbeRequestLog, Template: o.RequestLogTemplate}
	if o.Structured() {
		log.Template = ""
	}
	if err := errors.Join(s.observed.log.Set(log), s.observed.exporter.Apply(ctx, o.Config)); err != nil {
		s.log.Error("not all of config-observability can be done", "error", err)
	}
}

// showRequests serves the request log: ?namespace=, service=, tail= and follow=true choose.
func (s *Server) showRequests(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	ask := requestlog.Ask{Namespace: q.Get("namespace"), Service: q.Get("service"), Tail: -1, Follow: q.Get("follow") == "true"}
	if n, err := strconv.Atoi(q.Get("tail")); err == nil {
		ask.Tail = n
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush() // shows at the first line
	err := s.observed.shelf.Read(r.Context(), ask, func(text []byte) error {
		if _, err := w.Write(append(slices.Clip(text), '\n')); err != nil {
			return err
		}
		return out.Flush()
	})
	if err != nil {
		s.log.Debug("showing the request log", "error", err)
	}
}

// errStarting is what metrics answer until there is a node.
var errStarting = errors.New("the node is still starting")

// measured is where metrics.k8s.io looks: at nothing until the node is there. The API itself must
// answer from the first moment, since discovery of all others waits for it.
type measured struct {
	node atomic.Pointer[node.Node]
	pods atomic.Pointer[listers]
}

// listers answer from informers' memory.
type listers struct {
	pods  corelisters.PodLister
	nodes corelisters.NodeLister
}

// customMetricsHandler serves custom.metrics.k8s.io from what the gateway counts. It looks for pods
// first, which are there only after the autoscaler is.
func (s *Server) customMetricsHandler() http.Handler {
	gauge := custom.NewGauge(s.demand, func(rev types.NamespacedName) (string, custom.Reading, bool) {
		state, known := s.autoscaler.State(rev)
		return string(state.Metric), custom.Reading{Value: state.Stable, Window: state.Window}, known
	})
	return custom.New(custom.Config{Objects: &s.measured, Gauge: gauge, Log: s.log.With("part", "metrics")})
}

func customMetricsAPIs() []cluster.GroupVersion {
	var out []cluster.GroupVersion
	for i, version := range custom.Versions() {
		out = append(out, cluster.GroupVersion{Group: custom.Group, Version: version, GroupPriority: 100, VersionPriority: int32(100 - i)})
	}
	return out
}

// externalMetricsHandler serves external.metrics.k8s.io from what triggers say, once there is somebody
// who asks them.
func (s *Server) externalMetricsHandler() http.Handler {
	return external.New(external.Config{Log: s.log.With("part", "metrics"), Values: func() external.Values {
		if values := s.triggered.Load(); values != nil {
			return s.keda.Answering(*values)
		}
		return nil
	}})
}

// metricsHandler serves metrics.k8s.io.
func (s *Server) metricsHandler() (http.Handler, error) {
	return metricsapi.New(metricsapi.Config{
		Sources: []metricsapi.Source{&s.measured}, Objects: &s.measured, Log: s.log.With("part", "metrics"),
	})
}

// Summary implements metricsapi.Source.
func (m *measured) Summary(ctx context.Context) (*stats.Summary, error) {
	n := m.node.Load()
	if n == nil {
		return nil, errStarting
	}
	return n.Summary(ctx)
}

// Pods implements metricsapi.Objects.
func (m *measured) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	l := m.pods.Load()
	switch {
	case l == nil:
		return nil, errStarting
	case namespace == "":
		return l.pods.List(selector)
	default:
		return l.pods.Pods(namespace).List(selector)
	}
}

// Nodes implements metricsapi.Objects.
func (m *measured) Nodes(selector labels.Selector) ([]*corev1.Node, error) {
	l := m.pods.Load()
	if l == nil {
		return nil, errStarting
	}
	return l.nodes.List(selector)
}

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

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	discoveryac "k8s.io/client-go/applyconfigurations/discovery/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"ebb.dev/ebb/internal/component/cluster"
	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/component/gateway/requestlog"
	"ebb.dev/ebb/internal/component/metricsapi"
	"ebb.dev/ebb/internal/component/metricsapi/custom"
	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/platform/kube"
	"ebb.dev/ebb/internal/platform/kube/settings"
	"ebb.dev/ebb/internal/platform/telemetry/export"
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
func (s *Server) startObserving() error {
	dialer := &export.Dialer{
		Inside: s.net.DialContext, DNS: netip.AddrPortFrom(s.id.DNSIP(), 53), Domain: clusterDomain, Namespace: settings.Namespace,
	}
	var err error
	s.observed.exporter, err = export.New(export.Config{
		Version: Version, Own: s.metricsRegistry, Control: &s.observed.control, Requests: &s.observed.requests,
		Dial: dialer.DialContext, Listen: s.listenForScrapers, Stream: s.options.Out, Log: s.log.With("part", "telemetry"),
	})
	if err != nil {
		return err
	}
	s.observed.shelf = requestlog.NewShelf(s.folder.RequestLog(), s.log.With("part", "gateway"))
	s.observed.log = requestlog.New(s.observed.shelf.Put, s.metricsRegistry)
	s.onStop("request log's file", func(context.Context) error { return s.observed.shelf.Close() })
	s.background("request log", s.observed.log.Run)
	return nil
}

// scraped names the Service by which scrapers in the cluster find the metrics. Its ports are upstream's;
// nobody listens there unless config-observability says so.
const scraped = "telemetry"

// applyScraped makes that Service, which has no pods: it leads to the node.
func (s *Server) applyScraped(ctx context.Context) error {
	service := coreac.Service(scraped, systemNamespace).WithSpec(coreac.ServiceSpec().
		WithPorts(port("http-metrics", 9090), port("http-usermetric", 9091)))
	if _, err := s.client.CoreV1().Services(systemNamespace).Apply(ctx, service, owner); err != nil {
		return fmt.Errorf("applying service %s: %w", scraped, err)
	}
	at := func(name string, number int32) *discoveryac.EndpointPortApplyConfiguration {
		return discoveryac.EndpointPort().WithName(name).WithPort(number).WithProtocol(corev1.ProtocolTCP)
	}
	slice := discoveryac.EndpointSlice(scraped, systemNamespace).
		WithLabels(map[string]string{discoveryv1.LabelServiceName: scraped, discoveryv1.LabelManagedBy: kube.FieldOwner}).
		WithAddressType(discoveryv1.AddressTypeIPv4).WithPorts(at("http-metrics", 9090), at("http-usermetric", 9091)).
		WithEndpoints(discoveryac.Endpoint().WithAddresses(s.id.NodeIP().String()).
			WithConditions(discoveryac.EndpointConditions().WithReady(true)))
	if _, err := s.client.DiscoveryV1().EndpointSlices(systemNamespace).Apply(ctx, slice, owner); err != nil {
		return fmt.Errorf("applying the endpoints of service %s: %w", scraped, err)
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

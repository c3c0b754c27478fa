package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/component/autoscaler/deployment"
	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/component/proxy"
	"ebb.dev/ebb/internal/component/roster"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/kube"
)

// routeDomain is where public routes live unless config-domain says otherwise, and aliasDomain the
// one that needs nothing of the resolver but DNS.
const (
	routeDomain = "localhost"
	aliasDomain = "127.0.0.1.sslip.io"
)

// makeGateway joins gateway and autoscaler: each is the other's source.
func (s *Server) makeGateway() {
	s.autoscaler = autoscaler.New(autoscaler.Config{
		Fleet: s.fleet, Demand: s.demand, Scaler: deployment.New(s.client, s.log.With("part", "autoscaler")),
		Log: s.log.With("part", "autoscaler"), Registerer: s.metricsRegistry, Numbers: &s.observed.control,
	})
	s.roster, s.routes = roster.New(s.fleet), newRoutes(s.demand)
	s.gateway = gateway.New(gateway.Config{
		Fleet: s.fleet, Demand: s.demand, Sink: waker{s.autoscaler, s.routes, s.fleet, &s.gate}, Log: s.log.With("part", "gateway"),
		Registerer: s.metricsRegistry, Timeline: s.timeline, DialBackend: s.dialService,
		Numbers: s.observed.numbers(), RequestLog: s.observed.log, Tracer: s.observed.exporter.Tracer,
		Certificate: s.keys.Certificate, TLSPort: int(s.publicTLSPort()),
	})
	s.gate.Changed = s.memory.Pace
	s.fleet.Subscribe(func(rev types.NamespacedName) {
		if s.fleet.Ready(rev) > 0 {
			s.gate.End(rev)
		}
	})
	s.background("autoscaler", s.autoscaler.Run)
}

// dialService connects to a Service by its name in the cluster, which the cluster's DNS knows.
func (s *Server) dialService(ctx context.Context, network, addr string) (net.Conn, error) {
	names := net.JoinHostPort(s.id.DNSIP().String(), "53")
	d := net.Dialer{Timeout: servicePatience, Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, names)
		},
	}}
	d.SetMultipathTCP(false)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dialing %q: %w", addr, err)
	}
	return d.DialContext(ctx, network, net.JoinHostPort(host+".", port)) // whole, not below some search domain
}

// servicePatience bounds connecting to a Service.
const servicePatience = 10 * time.Second

// coldPatience is how long a start may hold up work that nobody waits for.
const coldPatience = 3 * time.Second

// waker tells the autoscaler, or who counts a route's requests, of demand, and everybody else that a
// first instance starts.
type waker struct {
	*autoscaler.Autoscaler
	routes *routes
	fleet  *fleet.Fleet
	gate   *kube.Gate
}

// Active implements demand.Sink.
func (w waker) Active(rev types.NamespacedName) {
	if w.fleet.Ready(rev) == 0 {
		w.gate.Begin(rev, coldPatience)
	}
	if traffic.IsPseudo(rev) {
		w.routes.request(rev)
		return
	}
	w.Autoscaler.Active(rev)
}

// Wake implements demand.Sink.
func (w waker) Wake(rev types.NamespacedName) {
	if traffic.IsPseudo(rev) {
		w.routes.request(rev)
		return
	}
	w.Autoscaler.Wake(rev)
}

// publish gives the gateway a new route table; the first one holds every route of the last run.
func (s *Server) publish(t *traffic.Table) {
	s.keys.Follow(context.Background(), t.Secrets())
	s.roster.SetTable(t)
	s.gateway.SetTable(t)
	s.routes.set(t)
	s.firstTable.Do(func() { close(s.published) })
}

// timeline is what the autoscaler did last to start instances of a revision.
func (s *Server) timeline(rev types.NamespacedName) map[string]time.Time {
	state, known := s.autoscaler.State(rev)
	if !known {
		return nil
	}
	return map[string]time.Time{"decide": state.Decided, "replicas": state.Written}
}

// claimPorts takes 127.0.0.1:80 and :443 when nobody has them; URLs need no port then.
func (s *Server) claimPorts(ctx context.Context) {
	claim := func(address string) net.Listener {
		listener, err := plainTCP().Listen(ctx, "tcp", address)
		if err != nil {
			return nil
		}
		s.onStop(address, func(context.Context) error { return ignoreClosed(listener.Close()) })
		return listener
	}
	s.onPort80, s.onPort443 = claim("127.0.0.1:80"), claim("127.0.0.1:443")
}

// plainTCP listens without multipath TCP, which Go offers by default and loopback has no use for.
func plainTCP() *net.ListenConfig {
	lc := &net.ListenConfig{}
	lc.SetMultipathTCP(false)
	return lc
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// startListeners opens the gateway to clients: on this machine and, through the Services' proxy, to
// pods.
func (s *Server) startListeners(ctx context.Context) error {
	main, err := plainTCP().Listen(ctx, "tcp", s.options.HTTP)
	if err != nil {
		return fmt.Errorf("listening on --http: %w", err)
	}
	secure, err := plainTCP().Listen(ctx, "tcp", s.options.HTTPS)
	if err != nil {
		return errors.Join(fmt.Errorf("listening on --https: %w", err), main.Close())
	}
	serve := func(how func(context.Context, net.Listener, bool) error, l net.Listener, external bool) {
		go func() {
			if err := how(context.WithoutCancel(ctx), l, external); err != nil && !errors.Is(err, net.ErrClosed) {
				s.fail(fmt.Errorf("serving %s: %w", l.Addr(), err))
			}
		}()
	}
	plain, withTLS := s.gateway.Serve, s.gateway.ServeTLS
	urls, secureURLs := []string{"http://" + s.options.HTTP}, []string{"https://" + s.options.HTTPS}
	serve(plain, main, true)
	serve(withTLS, secure, true)
	if s.onPort80 != nil {
		serve(plain, s.onPort80, true)
		urls = append(urls, "http://127.0.0.1:80")
	}
	if s.onPort443 != nil {
		serve(withTLS, s.onPort443, true)
		secureURLs = append(secureURLs, "https://127.0.0.1:443")
	}
	serve(plain, s.outer, true)
	serve(withTLS, s.outerTLS, true)
	serve(plain, s.inner, false)
	serve(withTLS, s.innerTLS, false)
	if err := s.serveRevisions(ctx); err != nil {
		return err
	}
	s.onStop("gateway", s.within(requestPatience, "requests", s.gateway.Shutdown))
	return s.say(func(st *Status) { st.HTTP, st.HTTPS = urls, secureURLs })
}

// serveRevisions opens the gateway where it stands for Knative's activator: at the node's address, which
// only pods reach.
func (s *Server) serveRevisions(ctx context.Context) error {
	for _, port := range []int{render.ActivatorHTTPPort, render.ActivatorHTTP2Port} {
		l, err := s.net.Listen(ctx, "tcp", net.JoinHostPort(s.id.NodeIP().String(), strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("listening as the activator: %w", err)
		}
		go func() {
			if err := s.gateway.ServeRevisions(context.WithoutCancel(ctx), l); err != nil && !errors.Is(err, net.ErrClosed) {
				s.fail(fmt.Errorf("serving %s: %w", l.Addr(), err))
			}
		}()
	}
	return nil
}

// gatewayInboxes are where the Services' proxy delivers connections to the gateway's own Services.
func (s *Server) gatewayInboxes() map[types.NamespacedName]map[int32]func(net.Conn) {
	s.outer = proxy.NewInbox(netip.AddrPortFrom(s.id.GatewayIP(), 80))
	s.outerTLS = proxy.NewInbox(netip.AddrPortFrom(s.id.GatewayIP(), 443))
	s.inner = proxy.NewInbox(netip.AddrPortFrom(s.id.NodeIP(), 80))
	s.innerTLS = proxy.NewInbox(netip.AddrPortFrom(s.id.NodeIP(), 443))
	outer := map[int32]func(net.Conn){80: s.outer.Deliver, 443: s.outerTLS.Deliver}
	if p := portOf(s.options.HTTP); outer[p] == nil {
		outer[p] = s.outer.Deliver
	}
	if p := portOf(s.options.HTTPS); outer[p] == nil {
		outer[p] = s.outerTLS.Deliver
	}
	return map[types.NamespacedName]map[int32]func(net.Conn){
		{Namespace: systemNamespace, Name: outerGateway}: outer,
		// Whoever leads requests from outside to KEDA's interceptor leads them here.
		{Namespace: kedaNamespace, Name: interceptor}:    {interceptorPort: s.outer.Deliver, interceptorTLSPort: s.outerTLS.Deliver},
		{Namespace: systemNamespace, Name: innerGateway}: {80: s.inner.Deliver, 81: s.inner.Deliver, 443: s.innerTLS.Deliver},
	}
}

// revisions shows the autoscaler to the controllers in their own terms.
type revisions struct{ *autoscaler.Autoscaler }

// State implements controller.Scaler.
func (a revisions) State(rev types.NamespacedName) (controller.ScaleState, bool) {
	state, known := a.Autoscaler.State(rev)
	if !known {
		return controller.ScaleState{}, false
	}
	return controller.ScaleState{Desired: state.Want, ExcessBurst: state.ExcessBurst, TimedOut: state.ActivityReason == scale.TimedOut}, true
}

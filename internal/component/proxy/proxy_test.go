package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// bench is a running proxy in a world of its own. Endpoints are servers in the node's namespace at
// addresses claimed for them, so that no pods are needed.
type bench struct {
	t      *testing.T
	world  *netnstest.World
	net    *netns.Net
	node   netip.Addr
	client *fake.Clientset
	proxy  *Proxy
}

func newBench(t *testing.T, i int, local map[types.NamespacedName]map[int32]func(net.Conn)) *bench {
	t.Helper()
	w := netnstest.New(t)
	c := w.Config(i)
	b := &bench{t: t, world: w, net: w.Open(t, c), node: c.NodeIP, client: fake.NewClientset()}
	factory := informers.NewSharedInformerFactory(b.client, 0)
	p, err := New(Config{
		Net: b.net, Client: b.client, Informers: factory, NodeName: "node", NodeIP: c.NodeIP,
		LoadBalancers: c.LoadBalancerCIDR, Local: local,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.proxy = p
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return b
}

// backend serves TCP and UDP at an address of the namespace's own.
func (b *bench) backend(addr, name string) {
	b.t.Helper()
	at := netip.MustParseAddrPort(addr)
	if err := b.net.Claim(at.Addr()); err != nil {
		b.t.Fatal(err)
	}
	netnstest.Serve(b.t, b.net, addr, name)
	netnstest.ServePackets(b.t, b.net, addr, name)
}

func (b *bench) apply(svc *corev1.Service, slices ...*discoveryv1.EndpointSlice) {
	b.t.Helper()
	if _, err := b.client.CoreV1().Services(svc.Namespace).Create(b.t.Context(), svc, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	for _, s := range slices {
		if _, err := b.client.DiscoveryV1().EndpointSlices(s.Namespace).Create(b.t.Context(), s, metav1.CreateOptions{}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// eventually tries until check is content.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// says checks what a TCP server at addr answers, as seen from a place.
func says(ctx context.Context, from netnstest.Place, addr, want string) func() error {
	return func() error {
		got, err := netnstest.Ask(ctx, from, addr)
		if err != nil {
			return err
		}
		if name, _, _ := strings.Cut(got, " "); name != want {
			return fmt.Errorf("%s says %q, want %q", addr, name, want)
		}
		return nil
	}
}

// refused checks that nothing listens at addr.
func refused(ctx context.Context, from netnstest.Place, addr string) func() error {
	return func() error {
		got, err := netnstest.Ask(ctx, from, addr)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%s answers %q, %w", addr, got, err)
		}
		return nil
	}
}

func service(ip string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip,
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80},
				{Name: "dgram", Protocol: corev1.ProtocolUDP, Port: 81},
			},
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

func slice(change func(*discoveryv1.EndpointSlice), addrs ...string) *discoveryv1.EndpointSlice {
	tcp, udp, http, dgram, port := corev1.ProtocolTCP, corev1.ProtocolUDP, "http", "dgram", int32(8080)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: &http, Protocol: &tcp, Port: &port}, {Name: &dgram, Protocol: &udp, Port: &port},
		},
	}
	ready := true
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
		})
	}
	if change != nil {
		change(s)
	}
	return s
}

func TestClusterIPLeadsToEndpointsByTCPAndUDP(t *testing.T) {
	b := newBench(t, 41, nil)
	b.backend("10.41.0.5:8080", "one")
	b.apply(service("10.41.64.7", nil), slice(nil, "10.41.0.5"))
	eventually(t, "TCP", says(t.Context(), b.world.Host, "10.41.64.7:80", "one"))
	eventually(t, "UDP", func() error {
		got, err := netnstest.AskPacket(t.Context(), b.world.Host, "10.41.64.7:81", "hello")
		if err == nil && !strings.HasSuffix(got, " hello") {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
	if err := b.client.DiscoveryV1().EndpointSlices("default").Delete(t.Context(), "web-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no endpoints", refused(t.Context(), b.world.Host, "10.41.64.7:80"))
	b.apply(service("10.41.64.8", func(s *corev1.Service) { s.Name = "other" }))
	if err := b.client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "state", func() error {
		b.proxy.mu.Lock()
		defer b.proxy.mu.Unlock()
		if len(b.proxy.state) != 1 {
			return fmt.Errorf("%d services are open, want 1", len(b.proxy.state))
		}
		return nil
	})
}

func TestNodePortAndBalancerAndExternalIP(t *testing.T) {
	b := newBench(t, 42, nil)
	b.backend("10.42.0.5:8080", "one")
	b.apply(service("10.42.64.7", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.Ports[0].NodePort = 30080
		s.Spec.ExternalIPs = []string{"203.0.113.9"}
	}), slice(nil, "10.42.0.5"))
	eventually(t, "node port", says(t.Context(), b.world.Host, b.node.String()+":30080", "one"))
	eventually(t, "load balancer", says(t.Context(), b.world.Host, "10.42.128.1:80", "one"))
	eventually(t, "external IP", says(t.Context(), b.net, "203.0.113.9:80", "one"))
	got, err := b.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in := got.Status.LoadBalancer.Ingress; len(in) != 1 || in[0].IP != "10.42.128.1" {
		t.Errorf("status has ingress %v, want 10.42.128.1", in)
	}
	got.Spec.Type = corev1.ServiceTypeClusterIP
	got.Spec.ExternalIPs = nil
	if _, err := b.client.CoreV1().Services("default").Update(t.Context(), got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "load balancer gone", refused(t.Context(), b.world.Host, "10.42.128.1:80"))
	eventually(t, "node port gone", refused(t.Context(), b.world.Host, b.node.String()+":30080"))
	eventually(t, "status emptied", func() error {
		got, err := b.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && len(got.Status.LoadBalancer.Ingress) > 0 {
			err = fmt.Errorf("ingress is %v", got.Status.LoadBalancer.Ingress)
		}
		return err
	})
}

func TestDeadEndpointsAreSkipped(t *testing.T) {
	b := newBench(t, 43, nil)
	b.backend("10.43.0.5:8080", "one")
	// One address that refuses, one that never answers (its packets go to the remote host and are lost there).
	if err := b.net.Claim(netip.MustParseAddr("10.43.0.6")); err != nil {
		t.Fatal(err)
	}
	b.apply(service("10.43.64.7", nil), slice(nil, "10.43.0.5", "10.43.0.6", "192.0.2.77"))
	eventually(t, "first", says(t.Context(), b.world.Host, "10.43.64.7:80", "one"))
	begin := time.Now()
	for range 12 {
		if err := says(t.Context(), b.world.Host, "10.43.64.7:80", "one")(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took > 800*time.Millisecond {
		t.Errorf("12 connections past dead endpoints took %v", took)
	}
}

func TestClientStaysWithItsEndpoint(t *testing.T) {
	b := newBench(t, 44, nil)
	b.backend("10.44.0.5:8080", "one")
	b.backend("10.44.0.6:8080", "two")
	b.apply(service("10.44.64.7", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
		slice(nil, "10.44.0.5", "10.44.0.6"))
	var first string
	eventually(t, "first", func() (err error) {
		first, err = netnstest.Ask(t.Context(), b.world.Host, "10.44.64.7:80")
		return err
	})
	for range 10 {
		got, err := netnstest.Ask(t.Context(), b.world.Host, "10.44.64.7:80")
		if err != nil || got != first {
			t.Fatalf("got %q, %v, want %q again", got, err, first)
		}
	}
}

func TestHalfClosedConnectionStillAnswers(t *testing.T) {
	b := newBench(t, 45, nil)
	if err := b.net.Claim(netip.MustParseAddr("10.45.0.5")); err != nil {
		t.Fatal(err)
	}
	l, err := b.net.Listen(t.Context(), "tcp", "10.45.0.5:8080")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				n, _ := io.Copy(io.Discard, c) // until the client has ended its half
				_, _ = fmt.Fprintf(c, "%d", n)
				_ = c.Close()
			}()
		}
	}()
	b.apply(service("10.45.64.7", nil), slice(nil, "10.45.0.5"))
	const size = 3 << 20
	eventually(t, "answer", func() error {
		c, err := b.world.Host.DialContext(t.Context(), "tcp", "10.45.64.7:80")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(make([]byte, size)); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		got, err := io.ReadAll(c)
		if err == nil && string(got) != fmt.Sprint(size) {
			err = fmt.Errorf("server counted %q bytes, want %d", got, size)
		}
		return err
	})
}

func TestLocalHandlerServesWithoutEndpoints(t *testing.T) {
	inbox := NewInbox(netip.MustParseAddrPort("10.46.128.1:80"))
	t.Cleanup(func() { _ = inbox.Close() })
	go func() {
		for {
			c, err := inbox.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "gateway here")
			_ = c.Close()
		}
	}()
	key := types.NamespacedName{Namespace: "default", Name: "web"}
	b := newBench(t, 46, map[types.NamespacedName]map[int32]func(net.Conn){key: {80: inbox.Deliver}})
	b.apply(service("10.46.64.7", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }))
	eventually(t, "cluster IP", says(t.Context(), b.world.Host, "10.46.64.7:80", "gateway"))
	eventually(t, "load balancer", says(t.Context(), b.world.Host, "10.46.128.1:80", "gateway"))
}

func TestDatagramsFollowTheirEndpoint(t *testing.T) {
	b := newBench(t, 48, nil)
	b.backend("10.48.0.5:8080", "one")
	b.backend("10.48.0.6:8080", "two")
	b.apply(service("10.48.64.7", nil), slice(nil, "10.48.0.5"))
	var c net.Conn
	exchange := func(want string) func() error {
		return func() error {
			_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := io.WriteString(c, "hello"); err != nil {
				return err
			}
			buf := make([]byte, 1500)
			n, err := c.Read(buf)
			if err == nil && !strings.HasPrefix(string(buf[:n]), want+" ") {
				err = fmt.Errorf("got %q from %s, want %s", buf[:n], c.RemoteAddr(), want)
			}
			return err
		}
	}
	eventually(t, "open", func() (err error) {
		if c, err = b.world.Host.DialContext(t.Context(), "udp", "10.48.64.7:81"); err == nil {
			err = exchange("one")()
		}
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	if _, err := b.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice(nil, "10.48.0.6"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the same client at the new endpoint", exchange("two"))
	if got := b.proxy.flows.now.Load(); got != 1 {
		t.Errorf("%d flows are open, want 1", got)
	}
	if err := b.client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "flows closed", func() error {
		if got := b.proxy.flows.now.Load(); got != 0 {
			return fmt.Errorf("%d flows are open", got)
		}
		return nil
	})
}

func TestFullTableOfFlowsMakesRoom(t *testing.T) {
	b := newBench(t, 49, nil)
	b.proxy.flows.max = 8
	b.backend("10.49.0.5:8080", "one")
	b.apply(service("10.49.64.7", nil), slice(nil, "10.49.0.5"))
	for range 40 {
		eventually(t, "UDP", func() error {
			_, err := netnstest.AskPacket(t.Context(), b.world.Host, "10.49.64.7:81", "hello")
			return err
		})
	}
	if got := b.proxy.flows.now.Load(); got > 8 {
		t.Errorf("%d flows are open, want at most 8", got)
	}
}

func TestBalancerLetsOnlyItsSourcesIn(t *testing.T) {
	b := newBench(t, 50, nil)
	b.backend("10.50.0.5:8080", "one")
	b.apply(service("10.50.64.7", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
	}), slice(nil, "10.50.0.5"))
	eventually(t, "cluster IP", says(t.Context(), b.world.Host, "10.50.64.7:80", "one"))
	eventually(t, "load balancer", func() error {
		if got, err := netnstest.Ask(t.Context(), b.world.Host, "10.50.128.1:80"); !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("got %q, %w, want a reset", got, err)
		}
		return nil
	})
}

func TestHealthCheckTellsLocalEndpoints(t *testing.T) {
	b := newBench(t, 55, nil)
	b.backend("10.55.0.5:8080", "one")
	node := "node"
	here := func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].NodeName = &node }
	b.apply(service("10.55.64.7", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.Ports[0].NodePort = 30080
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.HealthCheckNodePort = 30099
	}), slice(here, "10.55.0.5"))
	client := &http.Client{Transport: &http.Transport{DialContext: b.world.Host.DialContext, DisableKeepAlives: true}}
	answers := func(want int) func() error {
		return func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.node.String()+":30099/healthz", nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				return fmt.Errorf("status %d, want %d", resp.StatusCode, want)
			}
			return nil
		}
	}
	eventually(t, "with an endpoint", answers(http.StatusOK))
	if _, err := b.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice(nil, "10.55.0.5"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without one here", answers(http.StatusServiceUnavailable))
}

func BenchmarkConnectionThroughService(b *testing.B) {
	w := netnstest.New(b)
	c := w.Config(54)
	n := w.Open(b, c)
	p := &Proxy{cfg: Config{Net: n}, log: slog.New(slog.DiscardHandler), flows: &flowLimit{max: maxFlows}}
	p.metrics, _ = newMetrics(nil)
	end, at := netip.MustParseAddrPort("10.54.0.5:8080"), netip.MustParseAddrPort("10.54.64.7:80")
	if err := n.Claim(end.Addr()); err != nil {
		b.Fatal(err)
	}
	netnstest.Serve(b, n, end.String(), "hello")
	balancer := newBalancer()
	balancer.set(front{endpoints: []netip.AddrPort{end}}, nil)
	l, err := p.openStreamFront(b.Context(), at, balancer)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	for name, addr := range map[string]netip.AddrPort{"direct": end, "service": at} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := netnstest.Ask(b.Context(), n, addr.String()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package server

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"

	"ebb.dev/ebb/deploy"
	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/platform/kube"
)

// Names of the Services that lead to the gateway and to DNS. Routes' own Services point at the inner
// one, so cluster-local hosts are known only through it.
const (
	outerGateway = "gateway"
	innerGateway = "gateway-internal"
	dnsNamespace = "kube-system"
	dnsService   = "kube-dns"
)

// How clients of KEDA's HTTP add-on find its interceptor.
const (
	kedaNamespace      = credential.DefaultNamespace
	interceptor        = "keda-add-ons-http-interceptor-proxy"
	interceptorPort    = 8080
	interceptorTLSPort = 8443
)

// How pods name the gateways.
const (
	innerGatewayHost = innerGateway + "." + systemNamespace + ".svc." + clusterDomain
	outerGatewayHost = outerGateway + "." + systemNamespace + ".svc." + clusterDomain
)

// clusterDomain ends the names of Services.
const clusterDomain = "cluster.local"

// applySystem makes the cluster hold what ebb needs in it: kinds, namespaces, settings, Services.
func (s *Server) applySystem(ctx context.Context) error {
	manifests, err := deploy.Manifests()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return kube.Apply(gctx, s.rest, manifests...) })
	g.Go(func() error { return s.applyServices(gctx) })
	return g.Wait()
}

func (s *Server) applyServices(ctx context.Context) error {
	for _, name := range []string{systemNamespace, kedaNamespace} {
		if _, err := s.client.CoreV1().Namespaces().Apply(ctx, coreac.Namespace(name), owner); err != nil {
			return fmt.Errorf("applying namespace %s: %w", name, err)
		}
	}
	for _, service := range s.services() {
		if _, err := s.client.CoreV1().Services(*service.Namespace).Apply(ctx, service, owner); err != nil {
			return fmt.Errorf("applying service %s: %w", *service.Name, err)
		}
	}
	for _, of := range scrapedServices() {
		if err := s.applyScraped(ctx, of); err != nil {
			return err
		}
	}
	return nil
}

var owner = metav1.ApplyOptions{FieldManager: kube.FieldOwner, Force: true}

func (s *Server) services() []*coreac.ServiceApplyConfiguration {
	outer := coreac.Service(outerGateway, systemNamespace).WithSpec(coreac.ServiceSpec().
		WithType(corev1.ServiceTypeLoadBalancer).WithLoadBalancerIP(s.id.GatewayIP().String()).
		WithPorts(s.gatewayPorts()...))
	inner := coreac.Service(innerGateway, systemNamespace).WithSpec(coreac.ServiceSpec().
		WithType(corev1.ServiceTypeClusterIP).WithPorts(port("http", 80), port("http2", 81), port("https", 443)))
	dns := coreac.Service(dnsService, dnsNamespace).WithLabels(map[string]string{"k8s-app": dnsService, "kubernetes.io/name": "CoreDNS"}).
		WithSpec(coreac.ServiceSpec().WithType(corev1.ServiceTypeClusterIP).WithClusterIP(s.id.DNSIP().String()).WithPorts(
			port("dns", 53).WithProtocol(corev1.ProtocolUDP), port("dns-tcp", 53)))
	proxy := coreac.Service(interceptor, kedaNamespace).WithSpec(coreac.ServiceSpec().
		WithType(corev1.ServiceTypeClusterIP).WithPorts(port("proxy", interceptorPort), port("proxy-tls", interceptorTLSPort)))
	return []*coreac.ServiceApplyConfiguration{outer, inner, dns, proxy}
}

// gatewayPorts are 80 and 443, and the gateway's ports on this machine, so that an address that works
// here works inside pods too.
func (s *Server) gatewayPorts() []*coreac.ServicePortApplyConfiguration {
	ports := []*coreac.ServicePortApplyConfiguration{port("http", 80), port("https", 443)}
	taken := map[int32]bool{80: true, 443: true}
	for _, more := range []struct{ name, address string }{{"http-alt", s.options.HTTP}, {"https-alt", s.options.HTTPS}} {
		if p := portOf(more.address); !taken[p] {
			ports, taken[p] = append(ports, port(more.name, p)), true
		}
	}
	return ports
}

func port(name string, number int32) *coreac.ServicePortApplyConfiguration {
	return coreac.ServicePort().WithName(name).WithProtocol(corev1.ProtocolTCP).WithPort(number).WithTargetPort(intstr.FromInt32(number))
}

// publicPort is the port http URLs carry: 0 where the gateway has 127.0.0.1:80.
func (s *Server) publicPort() int32 { return unless(s.onPort80, 80, s.options.HTTP) }

// publicTLSPort is the port https URLs carry: 0 where the gateway has 127.0.0.1:443.
func (s *Server) publicTLSPort() int32 { return unless(s.onPort443, 443, s.options.HTTPS) }

func unless(claimed net.Listener, usual int32, address string) int32 {
	if p := portOf(address); claimed == nil && p != usual {
		return p
	}
	return 0
}

// portOf is the port of an address that Preflight has judged.
func portOf(address string) int32 {
	_, text, _ := net.SplitHostPort(address)
	number, _ := strconv.ParseInt(text, 10, 32)
	return int32(number)
}

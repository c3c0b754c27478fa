package proxy

import (
	"net"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// place is an address and protocol a Service is reachable at.
type place struct {
	protocol corev1.Protocol
	at       netip.AddrPort
}

// front is a place with what stands behind it.
type front struct {
	place
	port      int32            // of the Service
	endpoints []netip.AddrPort // to choose from, sorted; empty: refuse
	sources   []netip.Prefix   // clients let in; empty: all
	affinity  time.Duration    // how long a client stays with its endpoint; 0: not at all
	claimed   bool             // the address lies outside the ranges that are local anyway
	local     func(net.Conn)   // serves the connection in this process instead
}

// planner knows what of a plan is not in the objects.
type planner struct {
	node     string
	nodeIP   netip.Addr
	balancer netip.Addr // the Service's load-balancer address, if it has one
	local    map[int32]func(net.Conn)
}

// planned is what a Service comes down to.
type planned struct {
	fronts      []front
	unsupported []corev1.ServicePort
}

// plan turns a Service and its EndpointSlices into fronts.
func (p planner) plan(svc *corev1.Service, all []*discoveryv1.EndpointSlice) planned {
	var out planned
	clusterIP, err := netip.ParseAddr(svc.Spec.ClusterIP)
	if svc.Spec.Type == corev1.ServiceTypeExternalName || err != nil || !clusterIP.Is4() {
		return out // headless and ExternalName Services are a matter of DNS
	}
	for _, port := range svc.Spec.Ports {
		if port.Protocol != corev1.ProtocolTCP && port.Protocol != corev1.ProtocolUDP && port.Protocol != "" {
			out.unsupported = append(out.unsupported, port)
			continue
		}
		out.fronts = append(out.fronts, p.port(svc, port, clusterIP, all)...)
	}
	return out
}

// port lists the fronts of one Service port.
func (p planner) port(svc *corev1.Service, port corev1.ServicePort, clusterIP netip.Addr, all []*discoveryv1.EndpointSlice) []front {
	protocol := port.Protocol
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	internalOnly := svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	externalOnly := svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	internal := endpoints(port, all, p.filter(internalOnly))
	external := endpoints(port, all, p.filter(externalOnly))
	build := func(at netip.Addr, number int32, eps []netip.AddrPort) front {
		f := front{
			place:     place{protocol, netip.AddrPortFrom(at, uint16(number))},
			port:      port.Port,
			endpoints: eps,
			affinity:  affinity(svc),
		}
		if protocol == corev1.ProtocolTCP {
			f.local = p.local[port.Port]
		}
		return f
	}
	fronts := []front{build(clusterIP, port.Port, internal)}
	if port.NodePort != 0 && svc.Spec.Type != corev1.ServiceTypeClusterIP {
		fronts = append(fronts, build(p.nodeIP, port.NodePort, external))
	}
	if p.balancer.IsValid() {
		f := build(p.balancer, port.Port, external)
		f.sources = sources(svc)
		fronts = append(fronts, f)
	}
	for _, ip := range svc.Spec.ExternalIPs {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4() {
			f := build(addr, port.Port, external)
			f.claimed = true
			fronts = append(fronts, f)
		}
	}
	return fronts
}

// filter is the node endpoints must be on, or empty for any.
func (p planner) filter(local bool) string {
	if local {
		return p.node
	}
	return ""
}

// affinity is how long a client stays with its endpoint.
func affinity(svc *corev1.Service) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

// sources are the clients a load-balancer address lets in.
func sources(svc *corev1.Service) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range svc.Spec.LoadBalancerSourceRanges {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// endpoints lists where a Service port leads: to the ready endpoints or, while all of them are on
// their way out, to those that still serve. With node set, only endpoints there count.
func endpoints(port corev1.ServicePort, all []*discoveryv1.EndpointSlice, node string) []netip.AddrPort {
	var ready, leaving []netip.AddrPort
	for _, s := range all {
		number, ok := slicePort(port, s)
		if !ok || s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, e := range s.Endpoints {
			addr, err := first(e.Addresses)
			if err != nil || node != "" && deref(e.NodeName) != node {
				continue
			}
			at := netip.AddrPortFrom(addr, number)
			if deref(orTrue(e.Conditions.Ready)) {
				ready = append(ready, at)
			} else if deref(e.Conditions.Serving) && deref(e.Conditions.Terminating) {
				leaving = append(leaving, at)
			}
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// first parses the address of an endpoint; Kubernetes gives all of them the same meaning.
func first(addresses []string) (netip.Addr, error) {
	if len(addresses) == 0 {
		return netip.Addr{}, errNoEndpoint
	}
	return netip.ParseAddr(addresses[0])
}

// deref is what p points at, or the zero value.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// orTrue is b, or true where the API leaves it open.
func orTrue(b *bool) *bool {
	if b == nil {
		return new(true)
	}
	return b
}

// slicePort is the number a Service port has in a slice, found by name and protocol.
func slicePort(port corev1.ServicePort, s *discoveryv1.EndpointSlice) (uint16, bool) {
	for _, sp := range s.Ports {
		name, protocol := "", corev1.ProtocolTCP
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Protocol != nil {
			protocol = *sp.Protocol
		}
		want := port.Protocol
		if want == "" {
			want = corev1.ProtocolTCP
		}
		if name == port.Name && protocol == want && sp.Port != nil {
			return uint16(*sp.Port), true
		}
	}
	return 0, false
}

package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestPlan(t *testing.T) {
	yes, no, node, elsewhere := true, false, "node", "elsewhere"
	local := corev1.ServiceInternalTrafficPolicyLocal
	seconds := int32(60)
	ready := slice(nil, "10.9.0.5", "10.9.0.6")
	for what, tt := range map[string]struct {
		change func(*corev1.Service)
		slices []*discoveryv1.EndpointSlice
		want   []string // fronts as "place → endpoints"; UDP left out
	}{
		"ready endpoints": {
			slices: []*discoveryv1.EndpointSlice{ready},
			want:   []string{"10.96.0.7:80 → 10.9.0.5:8080 10.9.0.6:8080"},
		},
		"the same endpoint in two slices": {
			slices: []*discoveryv1.EndpointSlice{ready, ready},
			want:   []string{"10.96.0.7:80 → 10.9.0.5:8080 10.9.0.6:8080"},
		},
		"no endpoints": {want: []string{"10.96.0.7:80 →"}},
		"an endpoint that is not ready": {
			slices: []*discoveryv1.EndpointSlice{slice(func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = &no }, "10.9.0.5", "10.9.0.6")},
			want:   []string{"10.96.0.7:80 → 10.9.0.6:8080"},
		},
		"readiness unknown counts as ready": {
			slices: []*discoveryv1.EndpointSlice{slice(func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = nil }, "10.9.0.5")},
			want:   []string{"10.96.0.7:80 → 10.9.0.5:8080"},
		},
		"all endpoints leaving but one still serving": {
			slices: []*discoveryv1.EndpointSlice{slice(func(s *discoveryv1.EndpointSlice) {
				s.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
				s.Endpoints[1].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &no, Terminating: &yes}
			}, "10.9.0.5", "10.9.0.6")},
			want: []string{"10.96.0.7:80 → 10.9.0.5:8080"},
		},
		"a slice of names": {
			slices: []*discoveryv1.EndpointSlice{slice(func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }, "far.example")},
			want:   []string{"10.96.0.7:80 →"},
		},
		"a port of another name": {
			change: func(s *corev1.Service) { s.Spec.Ports[0].Name = "other" },
			slices: []*discoveryv1.EndpointSlice{ready},
			want:   []string{"10.96.0.7:80 →"},
		},
		"headless":     {change: func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }},
		"ExternalName": {change: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }},
		"node port": {
			change: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort; s.Spec.Ports[0].NodePort = 30080 },
			slices: []*discoveryv1.EndpointSlice{ready},
			want: []string{
				"10.96.0.7:80 → 10.9.0.5:8080 10.9.0.6:8080", "10.1.255.1:30080 → 10.9.0.5:8080 10.9.0.6:8080",
			},
		},
		"external traffic stays local, internal does not": {
			change: func(s *corev1.Service) {
				s.Spec.Type = corev1.ServiceTypeNodePort
				s.Spec.Ports[0].NodePort = 30080
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			},
			slices: []*discoveryv1.EndpointSlice{slice(func(s *discoveryv1.EndpointSlice) {
				s.Endpoints[0].NodeName, s.Endpoints[1].NodeName = &node, &elsewhere
			}, "10.9.0.5", "10.9.0.6")},
			want: []string{"10.96.0.7:80 → 10.9.0.5:8080 10.9.0.6:8080", "10.1.255.1:30080 → 10.9.0.5:8080"},
		},
		"internal traffic stays local": {
			change: func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local },
			slices: []*discoveryv1.EndpointSlice{slice(func(s *discoveryv1.EndpointSlice) { s.Endpoints[1].NodeName = &node }, "10.9.0.5", "10.9.0.6")},
			want:   []string{"10.96.0.7:80 → 10.9.0.6:8080"},
		},
		"affinity": {
			change: func(s *corev1.Service) {
				s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
			},
			slices: []*discoveryv1.EndpointSlice{ready},
			want:   []string{"10.96.0.7:80 → 10.9.0.5:8080 10.9.0.6:8080 for 1m0s"},
		},
		"external IPs": {
			change: func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.9", "2001:db8::1"} },
			slices: []*discoveryv1.EndpointSlice{ready},
			want: []string{
				"10.96.0.7:80 → 10.9.0.5:8080 10.9.0.6:8080", "203.0.113.9:80 → 10.9.0.5:8080 10.9.0.6:8080 claimed",
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := planner{node: "node", nodeIP: netip.MustParseAddr("10.1.255.1")}
			got := p.plan(service("10.96.0.7", tt.change), tt.slices)
			var fronts []string
			for _, f := range got.fronts {
				if f.protocol == corev1.ProtocolTCP {
					fronts = append(fronts, spell(f))
				}
			}
			if diff := cmp.Diff(tt.want, fronts); diff != "" {
				t.Errorf("fronts differ (-want +got):\n%s", diff)
			}
		})
	}
}

func spell(f front) string {
	s := f.at.String() + " →"
	for _, e := range f.endpoints {
		s += " " + e.String()
	}
	if f.affinity > 0 {
		s += fmt.Sprintf(" for %v", f.affinity)
	}
	if f.claimed {
		s += " claimed"
	}
	return s
}

func TestPlanNamesPortsItCannotServe(t *testing.T) {
	svc := service("10.96.0.7", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolSCTP })
	got := planner{}.plan(svc, nil)
	if len(got.unsupported) != 1 || got.unsupported[0].Port != 80 {
		t.Errorf("unsupported ports are %v, want 80", got.unsupported)
	}
}

func TestPlanGivesLocalPortsTheirHandler(t *testing.T) {
	handler := func(net.Conn) {}
	p := planner{balancer: netip.MustParseAddr("10.8.0.1"), local: map[int32]func(net.Conn){80: handler}}
	svc := service("10.96.0.7", func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} })
	for _, f := range p.plan(svc, nil).fronts {
		if (f.local != nil) != (f.protocol == corev1.ProtocolTCP) {
			t.Errorf("front %v: handler set: %v", f.place, f.local != nil)
		}
		if balancer := f.at.Addr() == p.balancer; balancer != (len(f.sources) == 1) {
			t.Errorf("front %v has sources %v", f.place, f.sources)
		}
	}
}

func TestBalancerTakesTurns(t *testing.T) {
	b := newBalancer()
	ends := []netip.AddrPort{netip.MustParseAddrPort("10.9.0.5:1"), netip.MustParseAddrPort("10.9.0.6:1"), netip.MustParseAddrPort("10.9.0.7:1")}
	b.set(front{endpoints: ends}, nil)
	count := map[netip.AddrPort]int{}
	for range 30 {
		order := b.order(netip.Addr{})
		if sorted := slices.Clone(order); len(sorted) != 3 {
			t.Fatalf("order is %v, want each endpoint once", order)
		}
		count[order[0]]++
	}
	for _, e := range ends {
		if count[e] != 10 {
			t.Errorf("%s came first %d times of 30, want 10", e, count[e])
		}
	}
}

func TestAffinityEndsAndIsBounded(t *testing.T) {
	a := newAffinities()
	client, at := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("10.9.0.5:1")
	a.keep(client, at)
	if got, ok := a.find(client, time.Hour); !ok || got != at {
		t.Errorf("client has %v, %v, want %v", got, ok, at)
	}
	if _, ok := a.find(client, 0); ok {
		t.Error("affinity did not end")
	}
	next := netip.MustParseAddr("10.0.0.0")
	for range maxAffinities + 100 {
		next = next.Next()
		a.keep(next, at)
	}
	if len(a.all) != maxAffinities {
		t.Errorf("%d clients are remembered, want %d", len(a.all), maxAffinities)
	}
}

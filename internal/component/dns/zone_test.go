package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cluster is a Store made of literals.
type cluster struct {
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	pods     []*corev1.Pod
}

func (c cluster) Service(namespace, name string) (*corev1.Service, bool) {
	i := slices.IndexFunc(c.services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil, false
	}
	return c.services[i], true
}

func (c cluster) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	var found []*discoveryv1.EndpointSlice
	for _, s := range c.slices {
		if s.Namespace == namespace && s.Labels[serviceLabel] == service {
			found = append(found, s)
		}
	}
	return found
}

func (c cluster) HasNamespace(name string) bool { return name == "default" || name == "ebb-system" }

func (c cluster) Owner(addr netip.Addr) Owner {
	var o Owner
	for _, s := range c.services {
		if s.Spec.ClusterIP == addr.String() {
			o.Service = s
		}
	}
	for _, s := range c.slices {
		for _, e := range s.Endpoints {
			if slices.Contains(e.Addresses, addr.String()) {
				o.Slices = append(o.Slices, s)
			}
		}
	}
	for _, p := range c.pods {
		if p.Status.PodIP == addr.String() {
			o.Pod = p
		}
	}
	return o
}

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }

func known() cluster {
	tcp, udp, yes, no, http, peer := corev1.ProtocolTCP, corev1.ProtocolUDP, true, false, "http", "peer"
	db0 := "db-0"
	port8080, port7000 := int32(8080), int32(7000)
	gateway := named("gateway")
	gateway.Namespace = "ebb-system"
	return cluster{
		services: []*corev1.Service{
			{ObjectMeta: named("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{
				{Name: "http", Protocol: tcp, Port: 80}, {Name: "dgram", Protocol: udp, Port: 81},
			}}},
			{ObjectMeta: named("plain"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8", Ports: []corev1.ServicePort{{Protocol: tcp, Port: 80}}}},
			{ObjectMeta: named("db"), Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}},
			{ObjectMeta: named("empty"), Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}},
			{ObjectMeta: named("outside"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "far.example"}},
			{ObjectMeta: named("hello"), Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeExternalName, ExternalName: "gateway.ebb-system.svc.cluster.local",
			}},
			{ObjectMeta: gateway, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9"}},
		},
		slices: []*discoveryv1.EndpointSlice{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{serviceLabel: "db"}},
			Ports: []discoveryv1.EndpointPort{
				{Name: &http, Protocol: &tcp, Port: &port8080}, {Name: &peer, Protocol: &tcp, Port: &port7000},
			},
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.9.0.5"}, Hostname: &db0, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
				{Addresses: []string{"10.9.0.6"}},
				{Addresses: []string{"10.9.0.7"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
			},
		}},
		pods: []*corev1.Pod{{ObjectMeta: named("p"), Status: corev1.PodStatus{PodIP: "10.9.0.99"}}},
	}
}

func TestZoneAnswersAsSpecified(t *testing.T) {
	server := &Server{
		zone: &zone{
			origin: "cluster.local.", store: known(), server: netip.MustParseAddr("10.96.0.10"),
			reverse: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.9.0.0/16")},
		},
		routes: newRoutes([]string{"localhost", "127.0.0.1.sslip.io"}, netip.MustParseAddr("10.1.255.1"),
			func(name string) bool { return name == "shop.example." }),
	}
	const missing, empty = "NXDOMAIN", "nothing"
	for what, tt := range map[string]struct {
		name  string
		qtype uint16
		want  []string // records without name and time; or missing, or empty
	}{
		"Service":                           {"web.default.svc.cluster.local.", dns.TypeA, []string{"A 10.96.0.7"}},
		"Service in another case":           {"WeB.Default.SVC.cluster.LOCAL.", dns.TypeA, []string{"A 10.96.0.7"}},
		"Service by IPv6":                   {"web.default.svc.cluster.local.", dns.TypeAAAA, []string{empty}},
		"unknown Service":                   {"none.default.svc.cluster.local.", dns.TypeA, []string{missing}},
		"Service of unknown namespace":      {"web.none.svc.cluster.local.", dns.TypeA, []string{missing}},
		"namespace":                         {"default.svc.cluster.local.", dns.TypeA, []string{empty}},
		"unknown namespace":                 {"none.svc.cluster.local.", dns.TypeA, []string{missing}},
		"named port":                        {"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, []string{"SRV 0 100 80 web.default.svc.cluster.local."}},
		"named port of other protocol":      {"_http._udp.web.default.svc.cluster.local.", dns.TypeSRV, []string{missing}},
		"all ports":                         {"web.default.svc.cluster.local.", dns.TypeSRV, []string{"SRV 0 50 80 web.default.svc.cluster.local.", "SRV 0 50 81 web.default.svc.cluster.local."}},
		"nameless port":                     {"_http._tcp.plain.default.svc.cluster.local.", dns.TypeSRV, []string{missing}},
		"protocol alone":                    {"_tcp.web.default.svc.cluster.local.", dns.TypeSRV, []string{empty}},
		"headless Service":                  {"db.default.svc.cluster.local.", dns.TypeA, []string{"A 10.9.0.5", "A 10.9.0.6"}},
		"headless Service without any":      {"empty.default.svc.cluster.local.", dns.TypeA, []string{empty}},
		"endpoint with a hostname":          {"db-0.db.default.svc.cluster.local.", dns.TypeA, []string{"A 10.9.0.5"}},
		"endpoint without a hostname":       {"10-9-0-6.db.default.svc.cluster.local.", dns.TypeA, []string{"A 10.9.0.6"}},
		"endpoint that is not ready":        {"10-9-0-7.db.default.svc.cluster.local.", dns.TypeA, []string{missing}},
		"port of headless Service":          {"_peer._tcp.db.default.svc.cluster.local.", dns.TypeSRV, []string{"SRV 0 50 7000 10-9-0-6.db.default.svc.cluster.local.", "SRV 0 50 7000 db-0.db.default.svc.cluster.local."}},
		"pod":                               {"10-9-0-5.default.pod.cluster.local.", dns.TypeA, []string{"A 10.9.0.5"}},
		"pod of unknown namespace":          {"10-9-0-5.none.pod.cluster.local.", dns.TypeA, []string{missing}},
		"pod that is no address":            {"x-9-0-5.default.pod.cluster.local.", dns.TypeA, []string{missing}},
		"alias within the cluster":          {"hello.default.svc.cluster.local.", dns.TypeA, []string{"CNAME gateway.ebb-system.svc.cluster.local.", "A 10.96.0.9"}},
		"alias within the cluster, IPv6":    {"hello.default.svc.cluster.local.", dns.TypeAAAA, []string{"CNAME gateway.ebb-system.svc.cluster.local."}},
		"alias itself":                      {"outside.default.svc.cluster.local.", dns.TypeCNAME, []string{"CNAME far.example."}},
		"reverse of Service":                {"7.0.96.10.in-addr.arpa.", dns.TypePTR, []string{"PTR web.default.svc.cluster.local."}},
		"reverse of endpoint with hostname": {"5.0.9.10.in-addr.arpa.", dns.TypePTR, []string{"PTR db-0.db.default.svc.cluster.local."}},
		"reverse of endpoint":               {"6.0.9.10.in-addr.arpa.", dns.TypePTR, []string{"PTR 10-9-0-6.db.default.svc.cluster.local."}},
		"reverse of pod":                    {"99.0.9.10.in-addr.arpa.", dns.TypePTR, []string{"PTR 10-9-0-99.default.pod.cluster.local."}},
		"reverse of nothing":                {"98.0.9.10.in-addr.arpa.", dns.TypePTR, []string{missing}},
		"version":                           {"dns-version.cluster.local.", dns.TypeTXT, []string{`TXT "1.1.0"`}},
		"name server":                       {"cluster.local.", dns.TypeNS, []string{"NS ns.dns.cluster.local."}},
		"name server's address":             {"ns.dns.cluster.local.", dns.TypeA, []string{"A 10.96.0.10"}},
		"anything else in the zone":         {"none.cluster.local.", dns.TypeA, []string{missing}},
		"route":                             {"hello.default.localhost.", dns.TypeA, []string{"A 10.1.255.1"}},
		"route by IPv6":                     {"hello.default.localhost.", dns.TypeAAAA, []string{empty}},
		"route of another domain":           {"hello.default.127.0.0.1.sslip.io.", dns.TypeA, []string{"A 10.1.255.1"}},
		"mapped host":                       {"shop.example.", dns.TypeA, []string{"A 10.1.255.1"}},
		"mapped host by IPv6":               {"SHOP.example.", dns.TypeAAAA, []string{empty}},
		"the local host":                    {"localhost.", dns.TypeA, []string{"A 127.0.0.1"}},
	} {
		t.Run(what, func(t *testing.T) {
			q := new(dns.Msg)
			q.SetQuestion(tt.name, tt.qtype)
			a := server.resolve(t.Context(), q)
			if diff := cmp.Diff(tt.want, spoken(a)); diff != "" {
				t.Errorf("answer differs (-want +got):\n%s", diff)
			}
			if !a.authoritative {
				t.Error("answer is not authoritative")
			}
			if len(a.records) == 0 && len(a.authority) != 1 {
				t.Errorf("authority is %v, want one SOA", a.authority)
			}
		})
	}
}

// spoken writes an answer as the tables do; aliases keep their place before what they lead to.
func spoken(a answer) []string {
	var out []string
	for _, rr := range a.records {
		fields := strings.Fields(rr.String())
		out = append(out, strings.Join(fields[3:], " "))
	}
	if !slices.ContainsFunc(out, func(s string) bool { return strings.HasPrefix(s, "CNAME") }) {
		slices.Sort(out)
	}
	switch {
	case a.rcode != dns.RcodeSuccess:
		return []string{dns.RcodeToString[a.rcode]}
	case len(out) == 0:
		return []string{"nothing"}
	}
	return out
}

package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// ttl is how long answers about the cluster may be kept; short, since instances come and go.
const ttl = 5

// version is that of the Kubernetes DNS specification followed.
const version = "1.1.0"

// Store is what the zone knows the cluster by.
type Store interface {
	Service(namespace, name string) (*corev1.Service, bool)
	Slices(namespace, service string) []*discoveryv1.EndpointSlice
	HasNamespace(name string) bool
	// Owner names what has an address: the Service, or else endpoints and pods.
	Owner(addr netip.Addr) Owner
}

// Owner is what has an address.
type Owner struct {
	Service *corev1.Service
	Slices  []*discoveryv1.EndpointSlice // with an endpoint at the address
	Pod     *corev1.Pod
}

// zone answers for the cluster's domain and the reverse names of its addresses.
type zone struct {
	origin  string // with the final dot
	reverse []netip.Prefix
	server  netip.Addr
	store   Store
}

// answer answers a question if it is about the zone.
func (z *zone) answer(q dns.Question) (answer, bool) {
	name := dns.CanonicalName(q.Name)
	if labels, ok := below(name, z.origin); ok {
		found, exists := z.find(labels)
		return z.shape(q, found, exists), true
	}
	addr, ok := reverseAddr(name)
	if !ok || !z.ours(addr) {
		return answer{}, false
	}
	names := z.names(addr)
	found := make([]record, 0, len(names))
	for _, n := range names {
		found = append(found, record{ptr: n})
	}
	return z.shape(q, found, len(names) > 0), true
}

func (z *zone) ours(addr netip.Addr) bool {
	return slices.ContainsFunc(z.reverse, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// record is one thing a name stands for; only one of the fields is set.
type record struct {
	addr  netip.Addr
	cname string
	ptr   string
	txt   string
	ns    string
	soa   bool
	srv   *service // with the address of its target
}

// service is a port at a target.
type service struct {
	target string
	port   int32
	addr   netip.Addr // of the target, for the additional section
}

// shape turns what a name stands for into the answer to a question. A name that exists without a
// record of the asked type gives an empty answer, one that does not exist a name error; both carry
// the SOA, so that they can be remembered.
func (z *zone) shape(q dns.Question, found []record, exists bool) answer {
	a := answer{by: "cluster", authoritative: true}
	srvs := 0
	for _, r := range found {
		if r.srv != nil {
			srvs++
		}
	}
	for _, r := range found {
		h := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: ttl}
		switch {
		case r.cname != "":
			a.records = append(a.records, cname(h, r.cname))
			if q.Qtype != dns.TypeCNAME {
				a.alias = r.cname
			}
		case r.srv != nil && q.Qtype == dns.TypeSRV:
			a.addPort(h, r.srv, max(100/srvs, 1))
		default:
			if rr := z.plain(h, q.Qtype, r); rr != nil {
				a.records = append(a.records, rr)
			}
		}
	}
	if len(a.records) > 1 {
		rand.Shuffle(len(a.records), func(i, j int) { a.records[i], a.records[j] = a.records[j], a.records[i] })
	}
	if len(a.records) == 0 {
		a.authority = []dns.RR{z.soa(z.origin)}
		if !exists {
			a.rcode = dns.RcodeNameError
		}
	}
	return a
}

// addPort adds an SRV record, and its target's address for those who would ask for it next.
func (a *answer) addPort(h dns.RR_Header, s *service, weight int) {
	h.Rrtype = dns.TypeSRV
	a.records = append(a.records, &dns.SRV{Hdr: h, Weight: uint16(weight), Port: uint16(s.port), Target: s.target})
	if s.addr.IsValid() {
		a.extra = append(a.extra, address(dns.RR_Header{Name: s.target, Class: dns.ClassINET, Ttl: ttl}, s.addr))
	}
}

// plain is the record as the asked type, or nil.
func (z *zone) plain(h dns.RR_Header, qtype uint16, r record) dns.RR {
	h.Rrtype = qtype
	switch {
	case r.addr.IsValid() && qtype == dns.TypeA:
		return address(h, r.addr)
	case r.ptr != "" && qtype == dns.TypePTR:
		return &dns.PTR{Hdr: h, Ptr: r.ptr}
	case r.txt != "" && qtype == dns.TypeTXT:
		return &dns.TXT{Hdr: h, Txt: []string{r.txt}}
	case r.ns != "" && qtype == dns.TypeNS:
		return &dns.NS{Hdr: h, Ns: r.ns}
	case r.soa && qtype == dns.TypeSOA:
		return z.soa(h.Name)
	}
	return nil
}

func address(h dns.RR_Header, addr netip.Addr) dns.RR {
	h.Rrtype = dns.TypeA
	return &dns.A{Hdr: h, A: addr.AsSlice()}
}

func cname(h dns.RR_Header, target string) dns.RR {
	h.Rrtype = dns.TypeCNAME
	return &dns.CNAME{Hdr: h, Target: target}
}

// soa marks the zone; its last field is how long a missing name may be remembered.
func (z *zone) soa(name string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.dns." + z.origin, Mbox: "hostmaster." + z.origin,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

// find tells what the name with these labels left of the origin stands for, and whether it exists.
func (z *zone) find(labels []string) ([]record, bool) {
	n := len(labels)
	if n == 0 {
		return []record{{soa: true}, {ns: "ns.dns." + z.origin}}, true
	}
	switch last := labels[n-1]; {
	case last == "svc":
		return z.inServices(labels[:n-1])
	case last == "pod":
		return z.inPods(labels[:n-1])
	case last == "dns-version" && n == 1:
		return []record{{txt: version}}, true
	case last == "dns" && n == 1:
		return nil, true
	case last == "dns" && n == 2 && labels[0] == "ns":
		return []record{{addr: z.server}}, true
	}
	return nil, false
}

// inPods answers a-b-c-d.namespace: the address is in the name.
func (z *zone) inPods(labels []string) ([]record, bool) {
	switch len(labels) {
	case 0:
		return nil, true
	case 1:
		return nil, z.store.HasNamespace(labels[0])
	case 2:
		addr, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", "."))
		if err == nil && addr.Is4() && z.store.HasNamespace(labels[1]) {
			return []record{{addr: addr}}, true
		}
	}
	return nil, false
}

// inServices answers [[_port.]_protocol. | endpoint.]service.namespace.
func (z *zone) inServices(labels []string) ([]record, bool) {
	n := len(labels)
	if n == 0 {
		return nil, true
	}
	namespace := labels[n-1]
	if n == 1 {
		return nil, z.store.HasNamespace(namespace)
	}
	svc, ok := z.store.Service(namespace, labels[n-2])
	if !ok {
		return nil, false
	}
	name := strings.Join([]string{svc.Name, svc.Namespace, "svc", z.origin}, ".")
	ports := func(port, protocol string) []record { return z.ports(svc, name, port, protocol) }
	switch rest := labels[:n-2]; {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		if len(rest) > 0 {
			return nil, false
		}
		return []record{{cname: dns.CanonicalName(svc.Spec.ExternalName)}}, true
	case len(rest) == 0:
		return append(z.addresses(svc), ports("", "")...), true
	case len(rest) == 1 && strings.HasPrefix(rest[0], "_"):
		found := ports("", rest[0][1:])
		return nil, len(found) > 0
	case len(rest) == 1:
		found := z.endpoint(svc, name, rest[0])
		return found, len(found) > 0
	case len(rest) == 2 && strings.HasPrefix(rest[0], "_") && strings.HasPrefix(rest[1], "_"):
		found := ports(rest[0][1:], rest[1][1:])
		return found, len(found) > 0
	}
	return nil, false
}

func headless(svc *corev1.Service) bool { return svc.Spec.ClusterIP == corev1.ClusterIPNone }

// addresses are a Service's own, or those of its ready endpoints where it has none.
func (z *zone) addresses(svc *corev1.Service) []record {
	if !headless(svc) {
		addr, err := netip.ParseAddr(svc.Spec.ClusterIP)
		if err != nil {
			return nil
		}
		return []record{{addr: addr}}
	}
	var found []record
	seen := map[netip.Addr]bool{}
	for _, e := range z.endpoints(svc) {
		if !seen[e.addr] {
			seen[e.addr] = true
			found = append(found, record{addr: e.addr})
		}
	}
	return found
}

// endpoint is the one of a Service's endpoints that has that name, with its ports.
func (z *zone) endpoint(svc *corev1.Service, name, label string) []record {
	var found []record
	seen := map[netip.Addr]bool{}
	for _, e := range z.endpoints(svc) {
		if e.name != label {
			continue
		}
		if !seen[e.addr] {
			seen[e.addr] = true
			found = append(found, record{addr: e.addr})
		}
		for _, p := range e.ports {
			if p.Port != nil {
				found = append(found, record{srv: &service{target: label + "." + name, port: *p.Port, addr: e.addr}})
			}
		}
	}
	return found
}

// ports are a Service's named ports; empty arguments fit all.
func (z *zone) ports(svc *corev1.Service, name, port, protocol string) []record {
	fits := func(n string, p corev1.Protocol) bool {
		return (port == "" || port == n) && (protocol == "" || strings.EqualFold(protocol, string(p)))
	}
	var found []record
	if !headless(svc) {
		addr, _ := netip.ParseAddr(svc.Spec.ClusterIP)
		for _, p := range svc.Spec.Ports {
			if fits(p.Name, p.Protocol) {
				found = append(found, record{srv: &service{target: name, port: p.Port, addr: addr}})
			}
		}
		return found
	}
	for _, e := range z.endpoints(svc) {
		for _, p := range e.ports {
			if p.Port == nil || p.Protocol == nil || !fits(deref(p.Name), *p.Protocol) {
				continue
			}
			found = append(found, record{srv: &service{target: e.name + "." + name, port: *p.Port, addr: e.addr}})
		}
	}
	return found
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// endpoint is a ready endpoint with its name below the Service's.
type endpoint struct {
	name  string
	addr  netip.Addr
	ports []discoveryv1.EndpointPort
}

// endpoints lists a Service's ready endpoints.
func (z *zone) endpoints(svc *corev1.Service) []endpoint {
	var found []endpoint
	for _, s := range z.store.Slices(svc.Namespace, svc.Name) {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, text := range e.Addresses {
				if addr, err := netip.ParseAddr(text); err == nil && addr.Is4() {
					found = append(found, endpoint{endpointName(e, addr), addr, s.Ports})
				}
			}
		}
	}
	return found
}

// endpointName is the endpoint's hostname, or one made of its address.
func endpointName(e discoveryv1.Endpoint, addr netip.Addr) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return *e.Hostname
	}
	return dashed(addr)
}

func dashed(addr netip.Addr) string { return strings.ReplaceAll(addr.String(), ".", "-") }

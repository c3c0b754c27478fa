package dns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// routes answers for the domains services are published under, where every name leads to the
// gateway, and for names that services have elsewhere.
type routes struct {
	domains []string // canonical
	gateway netip.Addr
	host    func(name string) bool
}

func newRoutes(domains []string, gateway netip.Addr, host func(name string) bool) routes {
	r := routes{gateway: gateway, host: host}
	for _, d := range domains {
		r.domains = append(r.domains, dns.CanonicalName(d))
	}
	return r
}

// answer answers a question about a name in one of the domains. The host "localhost" itself stays
// what it is everywhere.
func (r routes) answer(q dns.Question) (answer, bool) {
	name := dns.CanonicalName(q.Name)
	for _, domain := range r.domains {
		if _, ok := below(name, domain); !ok {
			continue
		}
		addr := r.gateway
		if name == "localhost." {
			addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return lead(q, domain, addr), true
	}
	if r.host != nil && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) && r.host(name) {
		return lead(q, name, r.gateway), true
	}
	return answer{}, false
}

// lead answers with the address, in the name of the zone.
func lead(q dns.Question, zoneName string, addr netip.Addr) answer {
	a := answer{by: "route", authoritative: true}
	if q.Qtype == dns.TypeA && addr.IsValid() {
		a.records = []dns.RR{address(dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: ttl}, addr)}
	} else {
		a.authority = []dns.RR{(&zone{origin: zoneName}).soa(zoneName)}
	}
	return a
}

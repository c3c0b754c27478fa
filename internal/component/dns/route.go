package dns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// routes answers for the domains services are published under: every name leads to the gateway.
type routes struct {
	domains []string // canonical
	gateway netip.Addr
}

func newRoutes(domains []string, gateway netip.Addr) routes {
	r := routes{gateway: gateway}
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
		a := answer{by: "route", authoritative: true}
		if q.Qtype == dns.TypeA && addr.IsValid() {
			a.records = []dns.RR{address(dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: ttl}, addr)}
		} else {
			a.authority = []dns.RR{(&zone{origin: domain}).soa(domain)}
		}
		return a, true
	}
	return answer{}, false
}

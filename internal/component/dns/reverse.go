package dns

import (
	"net/netip"
	"slices"
	"strings"
)

// reverseAddr reads the address out of a name below in-addr.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	text, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(text, ".")
	slices.Reverse(parts)
	addr, err := netip.ParseAddr(strings.Join(parts, "."))
	return addr, err == nil && addr.Is4()
}

// names are what an address is called: a Service's name, or those of the endpoints at it, or a pod's.
func (z *zone) names(addr netip.Addr) []string {
	owner := z.store.Owner(addr)
	if s := owner.Service; s != nil {
		return []string{strings.Join([]string{s.Name, s.Namespace, "svc", z.origin}, ".")}
	}
	var found []string
	for _, s := range owner.Slices {
		for _, e := range s.Endpoints {
			if !slices.Contains(e.Addresses, addr.String()) {
				continue
			}
			name := strings.Join([]string{endpointName(e, addr), s.Labels[serviceLabel], s.Namespace, "svc", z.origin}, ".")
			if !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	if len(found) == 0 && owner.Pod != nil {
		found = append(found, strings.Join([]string{dashed(addr), owner.Pod.Namespace, "pod", z.origin}, "."))
	}
	return found
}

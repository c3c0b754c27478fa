package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Dialer connects to collectors by the names that a pod of upstream's would use.
type Dialer struct {
	// Inside connects from within the cluster's network, to literal addresses.
	Inside func(ctx context.Context, network, addr string) (net.Conn, error)
	// DNS is the cluster's name server.
	DNS netip.AddrPort
	// Domain is the cluster's, Namespace where names without one are looked for.
	Domain, Namespace string
}

// DialContext connects to a literal address, a name of the cluster, or any other name.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("reading the address %q: %w", addr, err)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		ip, found, err := d.resolve(ctx, host)
		if err != nil {
			return nil, err
		}
		if found {
			return d.Inside(ctx, network, net.JoinHostPort(ip.String(), port))
		}
	}
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

// resolve asks the cluster's name server for what a pod's resolver would try; found is false for names
// that are not of the cluster.
func (d *Dialer) resolve(ctx context.Context, host string) (ip netip.Addr, found bool, err error) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.Inside(ctx, "tcp", d.DNS.String())
	}}
	for _, name := range d.names(host) {
		ips, err := resolver.LookupNetIP(ctx, "ip4", name)
		if missing := (*net.DNSError)(nil); errors.As(err, &missing) && missing.IsNotFound {
			continue
		}
		if err != nil {
			return netip.Addr{}, false, fmt.Errorf("looking up %s in the cluster: %w", name, err)
		}
		return ips[0].Unmap(), true, nil
	}
	return netip.Addr{}, false, nil
}

// names are the absolute names in the cluster that host may stand for.
func (d *Dialer) names(host string) []string {
	host = strings.TrimSuffix(host, ".")
	if strings.HasSuffix(host, "."+d.Domain) {
		return []string{host + "."}
	}
	var out []string
	for _, suffix := range []string{d.Namespace + ".svc.", "svc.", ""} {
		out = append(out, host+"."+suffix+d.Domain+".")
	}
	return out
}

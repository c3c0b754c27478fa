package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nodeLink is the namespace's end of the veth to the host.
const nodeLink = "eth0"

// ethernetMTU is taken where the host has no better one.
const ethernetMTU = 1500

// loopback is the device number of lo in every namespace.
const loopback = 1

// ErrTaken means something else on the host has addresses of ours.
var ErrTaken = errors.New("addresses are in use on this machine")

// connect makes the veth between host and namespace, its addresses, and the routes of both sides.
// Whatever is there already stays.
func (n *Net) connect() error {
	host, err := n.host.handle()
	if err != nil {
		return err
	}
	defer host.Close()
	if err := n.refuseTaken(host); err != nil {
		return err
	}
	outer, err := n.veth(host)
	if err != nil {
		return err
	}
	inner, err := n.route.LinkByName(nodeLink)
	if err != nil {
		return fmt.Errorf("finding %s in the namespace: %w", nodeLink, err)
	}
	// What comes from the host may have any source; under the relay its way back is another.
	if err := n.inner.Do(func() error { return setSysctl("ipv4/conf/"+nodeLink+"/rp_filter", "0") }); err != nil {
		n.cfg.Log.Warn("letting the host's packets in", "error", err)
	}
	hostEnd := end{host, outer, n.cfg.HostIP, n.cfg.NodeIP, inner.Attrs().HardwareAddr}
	nodeEnd := end{n.route, inner, n.cfg.NodeIP, n.cfg.HostIP, outer.Attrs().HardwareAddr}
	if err := errors.Join(hostEnd.up(), nodeEnd.up()); err != nil {
		return err
	}
	if err := AwaitCarrier(host, outer.Attrs().Index); err != nil {
		return err
	}
	if err := AwaitCarrier(n.route, inner.Attrs().Index); err != nil {
		return err
	}
	return errors.Join(n.innerRoutes(inner.Attrs().Index), n.hostRoutes(host, outer.Attrs().Index))
}

// refuseTaken fails if another link has a route into our ranges: replacing it would take addresses
// from its owner, and a narrower one would take them from us. Wider ones give way to ours.
func (n *Net) refuseTaken(host *netlink.Handle) error {
	own := 0
	if link, err := host.LinkByName(n.cfg.Name); err == nil {
		own = link.Attrs().Index
	}
	routes, err := host.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("reading the host's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == own {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		for _, p := range []netip.Prefix{n.cfg.PodCIDR, n.cfg.ServiceCIDR, n.cfg.LoadBalancerCIDR} {
			if bits >= p.Bits() && p.Contains(addr) {
				return fmt.Errorf("using %s: %w: %s is routed to %s", p, ErrTaken, r.Dst, nameOfLink(host, r.LinkIndex))
			}
		}
	}
	return nil
}

func nameOfLink(h *netlink.Handle, index int) string {
	link, err := h.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("link %d", index)
	}
	return link.Attrs().Name
}

// veth finds the host's end of the link to this namespace, or makes the pair. An end that leads
// elsewhere (its namespace was lost with a crash or an unmount) is replaced.
func (n *Net) veth(host *netlink.Handle) (netlink.Link, error) {
	outer, err := host.LinkByName(n.cfg.Name)
	if err == nil {
		inner, err := n.route.LinkByName(nodeLink)
		if err == nil && inner.Attrs().ParentIndex == outer.Attrs().Index {
			return outer, nil
		}
		if err := host.LinkDel(outer); err != nil {
			return nil, fmt.Errorf("replacing link %s: %w", n.cfg.Name, err)
		}
	}
	mtu := uplinkMTU(host)
	pair := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: n.cfg.Name, MTU: mtu, HardwareAddr: MAC(n.cfg.HostIP)},
		PeerName:         nodeLink,
		PeerMTU:          uint32(mtu),
		PeerHardwareAddr: MAC(n.cfg.NodeIP),
		PeerNamespace:    netlink.NsFd(n.inner.FD()),
	}
	if err := host.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("making link %s: %w", n.cfg.Name, err)
	}
	outer, err = host.LinkByName(n.cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("finding link %s: %w", n.cfg.Name, err)
	}
	return outer, nil
}

// uplinkMTU is that of the host's default route, so that pods' packets never need fragmenting.
func uplinkMTU(host *netlink.Handle) int {
	routes, err := host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil || len(routes) == 0 {
		return ethernetMTU
	}
	link, err := host.LinkByIndex(routes[0].LinkIndex)
	if err != nil || link.Attrs().MTU < 576 {
		return ethernetMTU
	}
	return min(link.Attrs().MTU, 9000)
}

// end is one side of a point-to-point link.
type end struct {
	h     *netlink.Handle
	link  netlink.Link
	own   netip.Addr
	other netip.Addr
	mac   net.HardwareAddr // of the other side
}

// up gives the end its address and its permanent neighbour, and brings it up. No ARP is ever sent.
func (e end) up() error {
	addr := &netlink.Addr{IPNet: HostNet(e.own), Peer: HostNet(e.other)}
	if err := e.h.AddrReplace(e.link, addr); err != nil {
		return fmt.Errorf("addressing %s as %s: %w", e.link.Attrs().Name, e.own, err)
	}
	if err := e.h.LinkSetUp(e.link); err != nil {
		return fmt.Errorf("bringing up %s: %w", e.link.Attrs().Name, err)
	}
	if err := e.h.NeighSet(Neighbour(e.link.Attrs().Index, e.other, e.mac)); err != nil {
		return fmt.Errorf("setting neighbour %s: %w", e.other, err)
	}
	return nil
}

// innerRoutes makes Service addresses local, sends the rest to the host, and answers for pods that
// are gone at once instead of sending their packets round in circles.
func (n *Net) innerRoutes(link int) error {
	lo, err := n.route.LinkByIndex(loopback)
	if err != nil {
		return fmt.Errorf("finding loopback: %w", err)
	}
	if err := n.route.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing up loopback: %w", err)
	}
	routes := []*netlink.Route{
		{LinkIndex: link, Gw: n.cfg.HostIP.AsSlice()},
		{Dst: Network(n.cfg.PodCIDR), Type: unix.RTN_UNREACHABLE, Priority: 1 << 16},
	}
	for _, p := range []netip.Prefix{n.cfg.ServiceCIDR, n.cfg.LoadBalancerCIDR} {
		routes = append(routes, n.anyIP(p))
	}
	return replaceRoutes(n.route, routes)
}

// anyIP is the route that makes every address of p local to the namespace.
func (n *Net) anyIP(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: loopback, Dst: Network(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	}
}

// hostRoutes leads the host's own traffic for pods and Services into the namespace.
func (n *Net) hostRoutes(host *netlink.Handle, link int) error {
	var routes []*netlink.Route
	for _, p := range []netip.Prefix{n.cfg.PodCIDR, n.cfg.ServiceCIDR, n.cfg.LoadBalancerCIDR} {
		routes = append(routes, &netlink.Route{LinkIndex: link, Dst: Network(p), Gw: n.cfg.NodeIP.AsSlice(), Src: n.cfg.HostIP.AsSlice()})
	}
	return replaceRoutes(host, routes)
}

func replaceRoutes(h *netlink.Handle, routes []*netlink.Route) error {
	for _, r := range routes {
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("setting route to %v: %w", r.Dst, err)
		}
	}
	return nil
}

// removeLink deletes the host's end, and with it the other end and all routes over it.
func removeLink(host *Space, name string) error {
	h, err := host.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := h.LinkDel(link); err != nil {
		return fmt.Errorf("deleting link %s: %w", name, err)
	}
	return nil
}

// Claim makes one more address local to the namespace, beside the ranges it has anyway.
func (n *Net) Claim(addr netip.Addr) error {
	return replaceRoutes(n.route, []*netlink.Route{n.anyIP(netip.PrefixFrom(addr, addr.BitLen()))})
}

// Disclaim undoes Claim; an address that was not claimed is fine.
func (n *Net) Disclaim(addr netip.Addr) error {
	err := n.route.RouteDel(n.anyIP(netip.PrefixFrom(addr, addr.BitLen())))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("deleting route to %s: %w", addr, err)
	}
	return nil
}

package network

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/netns"
)

// podLink is the pod's interface as Kubernetes' tools expect it.
const podLink = "eth0"

// loopback is the device number of lo in every namespace.
const loopback = 1

// gateway is what every pod sees as its router: an address without a host, answered by nobody but
// set as a permanent neighbour.
var gateway = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// linkName is the veth's end in ebb's namespace, derived from the address so that it can be found.
func linkName(ip netip.Addr) string { return "p" + hex.EncodeToString(ip.AsSlice()) }

// gatewayMAC is the hardware address of our end of a pod's link. Every link is a wire of its own,
// so all can have the same.
func gatewayMAC() net.HardwareAddr { return netns.MAC(gateway) }

// wire makes the namespace and the link, and returns when packets pass.
func (p *Pods) wire(a *Attachment) error {
	outer := p.net.Routes()
	space, err := netns.Make(a.NetnsPath, podSysctls)
	if err != nil {
		return err
	}
	defer func() { _ = space.Close() }()
	index, err := p.addLink(a, space)
	if err != nil {
		return err
	}
	if err := wirePod(space, a.IP); err != nil {
		return err
	}
	if err := outer.NeighSet(netns.Neighbour(index, a.IP, netns.MAC(a.IP))); err != nil {
		return fmt.Errorf("setting neighbour: %w", err)
	}
	if err := outer.RouteReplace(podRoute(index, a.IP)); err != nil {
		return fmt.Errorf("setting route: %w", err)
	}
	return netns.AwaitCarrier(outer, index)
}

// addLink makes the veth with its outer end up, and returns that end's number. The kernel may not
// be done with the link of a former pod at the same address; then that goes first.
func (p *Pods) addLink(a *Attachment, space *netns.Space) (int, error) {
	pair := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: a.HostIf, MTU: p.mtu, HardwareAddr: gatewayMAC(), Flags: net.FlagUp},
		PeerName:         podLink,
		PeerMTU:          uint32(p.mtu),
		PeerHardwareAddr: netns.MAC(a.IP),
		PeerNamespace:    netlink.NsFd(space.FD()),
	}
	h := p.net.Routes()
	err := h.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		if err := removeLink(h, a.HostIf); err != nil {
			return 0, err
		}
		err = h.LinkAdd(pair)
	}
	if err != nil {
		return 0, fmt.Errorf("making link %s: %w", a.HostIf, err)
	}
	return pair.Index, nil
}

func podRoute(link int, ip netip.Addr) *netlink.Route {
	return &netlink.Route{LinkIndex: link, Dst: netns.HostNet(ip), Scope: netlink.SCOPE_LINK}
}

// podSysctls are what container runtimes set for every pod: ports below 1024 and ping need no
// privilege in a network of its own. A kernel without one of them does without.
func podSysctls() error {
	for key, value := range map[string]string{
		"ipv4/ip_unprivileged_port_start": "0",
		"ipv4/ping_group_range":           "0 2147483647",
		"ipv6/conf/default/disable_ipv6":  "1",
	} {
		_ = os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
	}
	return nil
}

// wirePod sets up the pod's side: loopback, address, and everything else by the gateway.
func wirePod(space *netns.Space, ip netip.Addr) error {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(space.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink in the pod: %w", err)
	}
	defer h.Close()
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: loopback}}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing up loopback: %w", err)
	}
	link, err := h.LinkByName(podLink)
	if err != nil {
		return fmt.Errorf("finding %s in the pod: %w", podLink, err)
	}
	index := link.Attrs().Index
	if err := h.AddrReplace(link, &netlink.Addr{IPNet: netns.HostNet(ip)}); err != nil {
		return fmt.Errorf("setting address: %w", err)
	}
	// Our end is up already, so this one has its carrier from the start.
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up %s: %w", podLink, err)
	}
	if err := h.NeighSet(netns.Neighbour(index, gateway, gatewayMAC())); err != nil {
		return fmt.Errorf("setting gateway's neighbour: %w", err)
	}
	if err := h.RouteReplace(podRoute(index, gateway)); err != nil {
		return fmt.Errorf("setting route to gateway: %w", err)
	}
	if err := h.RouteReplace(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("setting default route: %w", err)
	}
	return nil
}

// tearDown stops traffic at once and leaves the slow part, deleting the veth, to the kernel, which
// does it for many namespaces together once the last process has left.
func (p *Pods) tearDown(a *Attachment) error {
	h := p.net.Routes()
	link, err := h.LinkByName(a.HostIf)
	if err == nil {
		index := link.Attrs().Index
		if err := h.RouteDel(podRoute(index, a.IP)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("deleting route: %w", err)
		}
		if err := h.NeighDel(netns.Neighbour(index, a.IP, nil)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("deleting neighbour: %w", err)
		}
	}
	if err := netns.Unmake(a.NetnsPath); err != nil {
		return err
	}
	if err := p.forget(a); err != nil {
		return err
	}
	p.pool.put(a.IP)
	return nil
}

// removeLink deletes a link a former pod with the same address may have left.
func removeLink(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting link %s: %w", name, err)
	}
	return nil
}

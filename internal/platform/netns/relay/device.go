package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// deviceName is the TUN device inside the namespace, table the routing table that leads there, and
// the priorities those of the rules that choose it.
const (
	deviceName    = "relay0"
	table         = 90
	rulePriority  = 100
	tunMajorMinor = 10<<8 | 200
)

// openDevice makes the TUN device inside. It goes away with its descriptor, which belongs to the
// namespace it was opened in.
func openDevice(inside Space) (*os.File, error) {
	var fd int
	err := inside.Do(func() (err error) {
		if fd, err = openTUN(); err != nil {
			return err
		}
		if err = configure(fd); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), deviceName), nil
}

// configure makes fd a device of whole IP packets.
func configure(fd int) error {
	req, err := unix.NewIfreq(deviceName)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("making TUN device: %w", err)
	}
	// Answers come from addresses whose route back is another.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+deviceName+"/rp_filter", []byte("0"), 0); err != nil {
		return fmt.Errorf("letting answers in: %w", err)
	}
	return unix.SetNonblock(fd, true)
}

// openTUN opens the kernel's TUN driver, by a device file of its own where /dev has none.
func openTUN() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, wrap(err)
	}
	dir, err := os.MkdirTemp("", "tun")
	if err != nil {
		return -1, wrap(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "tun")
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, tunMajorMinor); err != nil {
		return -1, wrap(err)
	}
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	return fd, wrap(err)
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("opening the TUN driver: %w", err)
}

// divert brings the device up and routes to it what pods and the namespace send to other hosts.
func divert(c Config) error {
	link, err := c.Routes.LinkByName(deviceName)
	if err != nil {
		return fmt.Errorf("finding TUN device: %w", err)
	}
	index := link.Attrs().Index
	if err := c.Routes.LinkSetMTU(link, c.MTU); err != nil {
		return fmt.Errorf("sizing TUN device: %w", err)
	}
	if err := c.Routes.AddrReplace(link, &netlink.Addr{IPNet: single(desk)}); err != nil {
		return fmt.Errorf("addressing TUN device: %w", err)
	}
	if err := c.Routes.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up TUN device: %w", err)
	}
	for _, route := range []*netlink.Route{
		{LinkIndex: index, Dst: single(guest), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Scope: netlink.SCOPE_LINK, Table: table},
	} {
		if err := c.Routes.RouteReplace(route); err != nil {
			return fmt.Errorf("routing to TUN device: %w", err)
		}
	}
	for _, rule := range rules(c.Pods, c.Node, c.Direct) {
		if err := c.Routes.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("diverting packets: %w", err)
		}
	}
	return nil
}

// Forget removes the rules an earlier relay left; its device and routes went with it.
func Forget(h *netlink.Handle, pods netip.Prefix, node, direct netip.Addr) error {
	for _, rule := range rules(pods, node, direct) {
		if err := h.RuleDel(rule); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing relay's rules: %w", err)
		}
	}
	return nil
}

// rules choose what is diverted: everything from pods and node but what is for pods or the host.
func rules(pods netip.Prefix, node, direct netip.Addr) []*netlink.Rule {
	podNet := &net.IPNet{IP: pods.Masked().Addr().AsSlice(), Mask: net.CIDRMask(pods.Bits(), 32)}
	var all []*netlink.Rule
	for _, source := range []*net.IPNet{podNet, single(node)} {
		for _, kept := range []*net.IPNet{podNet, single(direct)} {
			all = append(all, rule(rulePriority, source, kept, unix.RT_TABLE_MAIN))
		}
		all = append(all, rule(rulePriority+1, source, nil, table))
	}
	return all
}

func rule(priority int, source, to *net.IPNet, lookup int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Src, r.Dst, r.Table = unix.AF_INET, priority, source, to, lookup
	return r
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

// bindTo makes a socket use one link only, whatever the rules say.
func bindTo(link string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var result error
		err := c.Control(func(fd uintptr) { result = unix.BindToDevice(int(fd), link) })
		return errors.Join(err, result)
	}
}

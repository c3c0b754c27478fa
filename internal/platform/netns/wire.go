package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// carrierWait bounds the wait for a link whose both ends are up; the kernel takes microseconds, or
// a second at worst when it batches link events.
const carrierWait = 3 * time.Second

// errNoCarrier means a link did not come up in time.
var errNoCarrier = errors.New("no carrier")

// AwaitCarrier returns once the link can send. Asking is what makes recent kernels settle the
// link's state at once (since 6.8); older ones need a moment and tell nobody who did not subscribe
// before, hence the short poll.
func AwaitCarrier(h *netlink.Handle, index int) error {
	deadline := time.Now().Add(carrierWait)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		link, err := h.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("waiting for link %d: %w", index, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for link %s: %w", link.Attrs().Name, errNoCarrier)
		}
		pause.Reset(wait)
		<-pause.C
	}
}

// MAC derives a locally administered hardware address from an IPv4 address, so that both ends of a
// link know each other's without asking.
func MAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0xeb, b[0], b[1], b[2], b[3]}
}

// Neighbour is a permanent entry for addr on a link.
func Neighbour(link int, addr netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: link, Family: netlink.FAMILY_V4, State: unix.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac,
	}
}

// HostNet is addr with a mask of all its bits.
func HostNet(addr netip.Addr) *net.IPNet {
	return Network(netip.PrefixFrom(addr, addr.BitLen()))
}

// Network is p in the form netlink takes.
func Network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Package netnstest builds a small world to try a network in: a host that is a network namespace of
// its own, so that the machine's is left alone, and a remote machine one link away from it.
package netnstest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/netns"
)

// A World has a host and a remote machine that does not know the host's pods.
type World struct {
	Host, Remote         *netns.Space
	HostPath             string
	HostAddr, RemoteAddr netip.Addr
	Dir                  string
}

// New makes a world and takes it away with the test. It skips the test where namespaces cannot be
// made: without root.
func New(t testing.TB) *World {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	w := &World{
		Dir:        t.TempDir(),
		HostAddr:   netip.MustParseAddr("198.51.100.1"),
		RemoteAddr: netip.MustParseAddr("198.51.100.2"),
	}
	w.HostPath = filepath.Join(w.Dir, "host")
	w.Host = w.space(t, "host")
	w.Remote = w.space(t, "remote")
	host, remote := handle(t, w.Host), handle(t, w.Remote)
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "uplink", MTU: 1500}, PeerName: "eth0", PeerMTU: 1500,
		PeerNamespace: netlink.NsFd(w.Remote.FD()),
	}
	must(t, host.LinkAdd(pair))
	w.end(t, host, "uplink", w.HostAddr)
	w.end(t, remote, "eth0", w.RemoteAddr)
	must(t, host.RouteAdd(&netlink.Route{Gw: w.RemoteAddr.AsSlice()}))
	return w
}

func (w *World) space(t testing.TB, name string) *netns.Space {
	t.Helper()
	path := filepath.Join(w.Dir, name)
	s, err := netns.Make(path, nil)
	must(t, err)
	t.Cleanup(func() {
		_ = s.Close()
		if err := netns.Unmake(path); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (w *World) end(t testing.TB, h *netlink.Handle, name string, addr netip.Addr) {
	t.Helper()
	for _, l := range []string{"lo", name} {
		link, err := h.LinkByName(l)
		must(t, err)
		must(t, h.LinkSetUp(link))
	}
	link, err := h.LinkByName(name)
	must(t, err)
	must(t, h.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
}

// Config describes a network number i on the world's host; several live side by side.
func (w *World) Config(i int) netns.Config {
	prefix := func(format string) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, i)) }
	addr := func(format string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, i)) }
	return netns.Config{
		Name:             fmt.Sprintf("ebb-test%02d", i),
		BindPath:         filepath.Join(w.Dir, fmt.Sprintf("net%d", i), "netns"),
		NodeIP:           addr("10.%d.255.1"),
		HostIP:           addr("10.%d.255.0"),
		PodCIDR:          prefix("10.%d.0.0/18"),
		ServiceCIDR:      prefix("10.%d.64.0/18"),
		LoadBalancerCIDR: prefix("10.%d.128.0/24"),
		HostPath:         w.HostPath,
		RunDir:           filepath.Join(w.Dir, "run"),
	}
}

// Open opens a network and removes it with the test.
func (w *World) Open(t testing.TB, c netns.Config) *netns.Net {
	t.Helper()
	t.Cleanup(func() {
		if err := netns.Remove(c); err != nil {
			t.Error(err)
		}
	})
	n, err := netns.Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// A Place is where sockets can be opened.
type Place interface {
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Serve answers each TCP connection at addr with greeting and the caller's address, then closes it.
func Serve(t testing.TB, at Place, addr, greeting string) {
	t.Helper()
	l, err := at.Listen(t.Context(), "tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, greeting+" "+host)
			_ = c.Close()
		}
	}()
}

// ServePackets answers each datagram at addr with greeting, the caller's address and its content.
func ServePackets(t testing.TB, at Place, addr, greeting string) {
	t.Helper()
	c, err := at.ListenPacket(t.Context(), "udp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = c.WriteTo([]byte(greeting+" "+host+" "+string(buf[:n])), from)
		}
	}()
}

// Ask connects and returns everything the server says.
func Ask(ctx context.Context, from Place, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := from.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	data, err := io.ReadAll(c)
	return string(data), err
}

// AskPacket sends one datagram and returns the answer.
func AskPacket(ctx context.Context, from Place, addr, text string) (string, error) {
	c, err := from.DialContext(ctx, "udp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func handle(t testing.TB, s *netns.Space) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(s.FD()), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Package relay carries pods' connections to other hosts in userspace, for hosts whose kernel
// cannot masquerade.
//
// Routing inside ebb's namespace leads packets for other hosts into a TUN device. A UDP datagram is
// sent on from a socket of the host. A TCP connection is first dialled from the host; then its
// packets are given other addresses and sent back into the namespace, where the kernel's own TCP
// accepts them as a connection to the relay's listener, and the two connections are joined:
//
//	pod ─► TUN ─ (pod:p → far:q) becomes (guest:n → desk:l) ─► TUN ─► listener ═ dialled connection
//
// So the pod learns the truth about the far side (refused, unreachable, no answer), and no TCP
// stack but the kernel's is involved. Other protocols, ping among them, are not carried.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Space opens sockets in a network namespace.
type Space interface {
	Do(fn func() error) error
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
}

// Config says between which namespaces to carry what.
type Config struct {
	Inside, Outside Space
	Routes          *netlink.Handle // inside
	Pods            netip.Prefix    // whose packets are diverted
	Node            netip.Addr      // the namespace's own address, diverted likewise
	Direct          netip.Addr      // the host's end of the link, reached without the relay
	Uplink          string          // the link to the host, inside
	MTU             int
	Log             *slog.Logger
}

// Addresses of the two ends of relayed connections inside the namespace; they never leave it.
var (
	desk  = netip.AddrFrom4([4]byte{169, 254, 1, 2})
	guest = netip.AddrFrom4([4]byte{169, 254, 1, 3})
)

// A Relay is the running diversion.
type Relay struct {
	cfg      Config
	log      *slog.Logger
	device   *os.File
	listener net.Listener
	port     uint16          // of the listener
	outside  *netlink.Handle // tells which addresses are the host's own
	ctx      context.Context //nolint:containedctx // ends every dial when the relay closes
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex // guards the rest
	sessions map[tuple]*session
	byPort   map[uint16]*session
	lastPort uint16
	flows    map[tuple]*flow
}

// Open diverts what pods send to other hosts and carries it until Close.
func Open(ctx context.Context, c Config) (*Relay, error) {
	r := &Relay{
		cfg: c, log: c.Log,
		sessions: map[tuple]*session{}, byPort: map[uint16]*session{}, flows: map[tuple]*flow{},
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.running.Go(r.read)
	r.running.Go(r.accept)
	return r, nil
}

func (r *Relay) open(ctx context.Context) error {
	err := r.cfg.Outside.Do(func() (err error) {
		r.outside, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("opening netlink on the host: %w", err)
	}
	if r.device, err = openDevice(r.cfg.Inside); err != nil {
		return err
	}
	if err := divert(r.cfg); err != nil {
		return err
	}
	r.listener, err = r.cfg.Inside.Listen(ctx, "tcp4", netip.AddrPortFrom(desk, 0).String())
	if err != nil {
		return fmt.Errorf("listening for relayed connections: %w", err)
	}
	at, err := netip.ParseAddrPort(r.listener.Addr().String())
	if err != nil {
		return fmt.Errorf("reading the relay's port: %w", err)
	}
	r.port = at.Port()
	return nil
}

// Close ends the diversion and every connection carried.
func (r *Relay) Close() error {
	r.cancel()
	var errs []error
	if r.listener != nil {
		errs = append(errs, r.listener.Close())
	}
	if r.device != nil {
		errs = append(errs, r.device.Close())
	}
	r.mu.Lock()
	for _, s := range r.sessions {
		if s.far != nil {
			_ = s.far.Close()
		}
	}
	for _, f := range r.flows {
		_ = f.far.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
	if r.outside != nil {
		r.outside.Close()
	}
	return errors.Join(errs...)
}

// read handles the packets routed into the device until it is closed.
func (r *Relay) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.device.Read(buf)
		if err != nil {
			if r.ctx.Err() == nil && !errors.Is(err, os.ErrClosed) {
				r.log.Error("reading relayed packets", "error", err)
			}
			return
		}
		p, ok := parse(buf[:n])
		if !ok {
			continue
		}
		switch p.protocol() {
		case unix.IPPROTO_TCP:
			r.segment(p)
		case unix.IPPROTO_UDP:
			r.datagram(p)
		}
	}
}

// send puts a packet into the namespace; one that does not fit there is lost like any packet.
func (r *Relay) send(p packet) {
	if _, err := r.device.Write(p); err != nil && r.ctx.Err() == nil {
		r.log.Debug("sending a relayed packet", "error", err)
	}
}

// dialTime is how long the far side may take to answer; the pod's own kernel may give up earlier.
const dialTime = 30 * time.Second

// errForbidden means the address is one no pod may reach through the host.
var errForbidden = errors.New("address is not reachable from pods")

// dial connects from the host. What is the host's own is dialled from inside instead, so that the
// connection comes in by our link like any other and never looks local.
func (r *Relay) dial(network string, to netip.AddrPort) (net.Conn, error) {
	a := to.Addr()
	if !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() {
		return nil, errForbidden
	}
	routes, err := r.outside.RouteGet(a.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("finding route to %s: %w", a, err)
	}
	space, dialer := r.cfg.Outside, net.Dialer{Timeout: dialTime}
	dialer.SetMultipathTCP(false)
	for _, route := range routes {
		switch route.Type {
		case unix.RTN_LOCAL:
			space, dialer.Control = r.cfg.Inside, bindTo(r.cfg.Uplink)
		case unix.RTN_UNICAST:
		default:
			return nil, errForbidden
		}
	}
	var c net.Conn
	err = space.Do(func() (err error) {
		c, err = dialer.DialContext(r.ctx, network, to.String())
		return err
	})
	return c, err
}

package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// UDP has no connections, so a flow (one client, one front) is remembered until it has been quiet.
const (
	flowQuiet = 60 * time.Second
	maxFlows  = 16384
	datagram  = 64 << 10
)

// flowLimit bounds the flows of all fronts together.
type flowLimit struct {
	max int64
	now atomic.Int64
}

func (l *flowLimit) take() bool {
	if l.now.Add(1) > l.max {
		l.now.Add(-1)
		return false
	}
	return true
}

func (l *flowLimit) give() { l.now.Add(-1) }

// packetFront is a UDP place with its flows.
type packetFront struct {
	proxy    *Proxy
	conn     *net.UDPConn
	balancer *balancer

	mu    sync.Mutex // guards flows
	flows map[netip.AddrPort]*flow
}

// flow leads from a client to an endpoint and back.
type flow struct {
	client netip.AddrPort
	at     netip.AddrPort
	conn   net.Conn
	used   atomic.Int64 // unix nanoseconds
}

// openPacketFront listens at a UDP place and carries its datagrams.
func (p *Proxy) openPacketFront(ctx context.Context, at netip.AddrPort, b *balancer) (io.Closer, error) {
	pc, err := p.cfg.Net.ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.ErrUnsupported, pc.Close())
	}
	f := &packetFront{proxy: p, conn: conn, balancer: b, flows: map[netip.AddrPort]*flow{}}
	go f.receive(context.WithoutCancel(ctx))
	return f, nil
}

// Close ends the front and its flows.
func (f *packetFront) Close() error {
	err := f.conn.Close()
	f.drop(func(*flow) bool { return true })
	return err
}

// prune ends the flows to endpoints that are gone.
func (f *packetFront) prune() {
	endpoints := f.balancer.now.Load().endpoints
	f.drop(func(fl *flow) bool { return !slices.Contains(endpoints, fl.at) })
}

func (f *packetFront) drop(which func(*flow) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.flows {
		if which(fl) {
			f.forget(fl)
		}
	}
}

// forget ends a flow once. The lock is held.
func (f *packetFront) forget(fl *flow) {
	if f.flows[fl.client] != fl {
		return
	}
	delete(f.flows, fl.client)
	_ = fl.conn.Close()
	f.proxy.flows.give()
	f.proxy.metrics.flows.Dec()
}

// receive passes datagrams of clients on until the front is closed.
func (f *packetFront) receive(ctx context.Context) {
	buf := make([]byte, datagram)
	for {
		n, client, err := f.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		if err := f.pass(ctx, client, buf[:n]); err != nil {
			f.proxy.metrics.dropped.Inc()
			f.proxy.log.DebugContext(ctx, "passing a datagram on", slog.String("front", f.conn.LocalAddr().String()), slog.Any("error", err))
		}
	}
}

// pass sends one datagram along the client's flow.
func (f *packetFront) pass(ctx context.Context, client netip.AddrPort, data []byte) error {
	fl, err := f.flow(ctx, client)
	if err != nil {
		return err
	}
	fl.used.Store(time.Now().UnixNano())
	if _, err = fl.conn.Write(data); err == nil {
		return nil
	}
	// The endpoint refused an earlier datagram, or went away: once more by a new flow.
	f.end(fl)
	if fl, err = f.flow(ctx, client); err != nil {
		return err
	}
	_, err = fl.conn.Write(data)
	return err
}

func (f *packetFront) end(fl *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(fl)
}

// errCrowded means the table of flows is full.
var errCrowded = errors.New("too many UDP flows")

// flow finds or begins the client's flow.
func (f *packetFront) flow(ctx context.Context, client netip.AddrPort) (*flow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.flows[client]; ok {
		return fl, nil
	}
	source := client.Addr().Unmap()
	if !f.balancer.now.Load().admits(source) {
		return nil, errNoEndpoint
	}
	order := f.balancer.order(source)
	if len(order) == 0 {
		return nil, errNoEndpoint
	}
	if !f.room() {
		return nil, errCrowded
	}
	at := order[0]
	conn, err := f.proxy.cfg.Net.DialContext(ctx, "udp4", at.String())
	if err != nil {
		f.proxy.flows.give()
		return nil, err
	}
	f.balancer.chose(source, at)
	fl := &flow{client: client, at: at, conn: conn}
	fl.used.Store(time.Now().UnixNano())
	f.flows[client] = fl
	f.proxy.metrics.flows.Inc()
	f.proxy.metrics.connections.WithLabelValues("udp", "carried").Inc()
	go f.answer(fl)
	return fl, nil
}

// room takes a place in the table, ending the quietest of a few flows of this front if it is full.
// The lock is held.
func (f *packetFront) room() bool {
	if f.proxy.flows.take() {
		return true
	}
	var quietest *flow
	seen := 0
	for _, fl := range f.flows {
		if quietest == nil || fl.used.Load() < quietest.used.Load() {
			quietest = fl
		}
		if seen++; seen == 16 {
			break
		}
	}
	if quietest == nil {
		return false
	}
	f.forget(quietest)
	return f.proxy.flows.take()
}

// answer passes the endpoint's datagrams back until the flow is quiet or ended.
func (f *packetFront) answer(fl *flow) {
	defer f.end(fl)
	b, _ := datagrams.Get().(*[datagram]byte)
	defer datagrams.Put(b)
	for {
		quietAt := time.Unix(0, fl.used.Load()).Add(flowQuiet)
		_ = fl.conn.SetReadDeadline(quietAt)
		n, err := fl.conn.Read(b[:])
		switch {
		case err == nil:
			fl.used.Store(time.Now().UnixNano())
			if _, err := f.conn.WriteToUDPAddrPort(b[:n], fl.client); errors.Is(err, net.ErrClosed) {
				return
			}
		case isTimeout(err) && time.Unix(0, fl.used.Load()).Add(flowQuiet).After(time.Now()):
			// used meanwhile
		default:
			return
		}
	}
}

var datagrams = sync.Pool{New: func() any { return new([datagram]byte) }}

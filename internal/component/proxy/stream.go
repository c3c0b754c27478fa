package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// Connecting is tried with short waits, since the kernel repeats a lost first packet only after a
// second; each round over the endpoints doubles the wait.
const (
	firstWait  = 20 * time.Millisecond
	longestTry = 2 * time.Second
	givingUp   = 15 * time.Second
)

// openStreamFront listens at a TCP place and carries its connections.
func (p *Proxy) openStreamFront(ctx context.Context, at netip.AddrPort, b *balancer) (io.Closer, error) {
	l, err := p.cfg.Net.Listen(ctx, "tcp4", at.String())
	if err != nil {
		return nil, err
	}
	go p.acceptAll(context.WithoutCancel(ctx), l, b)
	return l, nil
}

// acceptAll ends when the listener is closed. Shortage of descriptors passes; it waits a moment.
func (p *Proxy) acceptAll(ctx context.Context, l net.Listener, b *balancer) {
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.metrics.connections.WithLabelValues("tcp", "accept_failed").Inc()
			<-time.After(pause)
			pause = min(2*pause, time.Second)
		default:
			pause = 5 * time.Millisecond
			p.accepted(ctx, c, b)
		}
	}
}

// accepted hands a connection to its handler or starts carrying it.
func (p *Proxy) accepted(ctx context.Context, c net.Conn, b *balancer) {
	choice := b.now.Load()
	client := remote(c)
	if !choice.admits(client) {
		p.metrics.connections.WithLabelValues("tcp", "source_refused").Inc()
		reset(c)
		return
	}
	if choice.local != nil {
		p.metrics.connections.WithLabelValues("tcp", "local").Inc()
		choice.local(c)
		return
	}
	go p.carry(ctx, c, client, b)
}

// carry connects to an endpoint and copies both ways until both sides have ended.
func (p *Proxy) carry(ctx context.Context, c net.Conn, client netip.Addr, b *balancer) {
	connecting, cancel := context.WithTimeout(ctx, givingUp)
	up, err := p.connect(connecting, b, client)
	cancel()
	if err != nil {
		p.metrics.connections.WithLabelValues("tcp", "unreachable").Inc()
		p.log.DebugContext(ctx, "connecting to a Service's endpoint", "front", c.LocalAddr().String(), "error", err)
		reset(c)
		return
	}
	p.metrics.connections.WithLabelValues("tcp", "carried").Inc()
	p.metrics.active.Inc()
	defer p.metrics.active.Dec()
	join(c, up)
}

// connect tries the endpoints in turn until one answers. Endpoints that refuse are not asked twice:
// if all do, so does the Service.
func (p *Proxy) connect(ctx context.Context, b *balancer, client netip.Addr) (net.Conn, error) {
	for wait := firstWait; ; wait = min(2*wait, longestTry) {
		order := b.order(client)
		if len(order) == 0 {
			return nil, errNoEndpoint
		}
		slow := false
		var last error
		for _, at := range order {
			c, err := p.dial(ctx, at, wait)
			if err == nil {
				b.chose(client, at)
				return c, nil
			}
			p.metrics.retries.Inc()
			last, slow = err, slow || isTimeout(err)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("connecting to %s: %w", at, last)
			}
		}
		if !slow {
			return nil, last
		}
	}
}

func (p *Proxy) dial(ctx context.Context, at netip.AddrPort, wait time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return p.cfg.Net.DialContext(ctx, "tcp4", at.String())
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// remote is the address of a connection's other side.
func remote(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// reset ends a connection so that the other side sees it refused rather than finished.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

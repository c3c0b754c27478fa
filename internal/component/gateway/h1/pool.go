package h1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// freshFor is how long a connection may have been idle to carry a request that must not be
	// sent twice: servers close idle connections, and the request could cross with that.
	freshFor = time.Second
	// idleFor is how long a connection is kept without use.
	idleFor = 30 * time.Second
	// maxIdle bounds the connections kept for one instance.
	maxIdle = 256
	// firstDial and longDial bound the time to connect. The instance is a network hop away: waiting
	// for the kernel to repeat a lost SYN after 1 s would cost more than trying again.
	firstDial = 20 * time.Millisecond
	longDial  = time.Second
)

// DialFunc connects to an instance.
type DialFunc func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// Pool keeps the connections to one instance. Its methods are safe for concurrent use.
type Pool struct {
	to   netip.AddrPort
	dial DialFunc

	patience atomic.Int64 // time for the next dial, grows with each that runs out

	mu     sync.Mutex // guards all below
	idle   []*Conn    // the one used last is at the end
	trust  trust
	closed bool
	sweep  *time.Timer
}

// NewPool returns an empty pool.
func NewPool(to netip.AddrPort, dial DialFunc) *Pool {
	p := &Pool{to: to, dial: dial}
	p.patience.Store(int64(firstDial))
	return p
}

// Get returns a connection: one that is kept, or a new one. A request that is not repeatable gets a
// kept one only if the instance is trusted not to close it just then. The connection goes back by
// Done or Discard.
func (p *Pool) Get(ctx context.Context, now time.Time, repeatable bool) (*Conn, error) {
	for {
		c, sample := p.take(now, repeatable)
		if c == nil {
			break
		}
		c.idle = now.Sub(c.idleSince)
		if sample {
			p.examine(c)
			break
		}
		// Just now put back and repeatable: the look at the socket costs more than a rare repeat.
		if repeatable && c.idle < telling || c.sock.silent() {
			c.reused = true
			c.begin()
			return c, nil
		}
		p.sawClosed(c)
		c.Close() // closed by the other side
	}
	return p.Dial(ctx)
}

// take returns the connection used last. If it is not to be used, it may return the one used longest
// ago as a sample of what becomes of connections.
func (p *Pool) take(now time.Time, repeatable bool) (c *Conn, sample bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil, false
	}
	idle := now.Sub(p.idle[n-1].idleSince)
	if repeatable && idle <= idleFor || !repeatable && p.trust.allows(idle) {
		c = p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return c, false
	}
	if now.Sub(p.idle[0].idleSince) < telling {
		return nil, false
	}
	c = p.idle[0]
	p.idle = append(p.idle[:0], p.idle[1:]...)
	return c, true
}

// examine looks whether a kept connection is still open, and keeps it if it is.
func (p *Pool) examine(c *Conn) {
	if !c.sock.silent() {
		p.sawClosed(c)
		c.Close() // closed by the other side
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trust.sawAlive(c.idle)
	if p.closed {
		c.Close() // the instance is gone
		return
	}
	p.idle = append(p.idle, nil)
	copy(p.idle[1:], p.idle)
	p.idle[0] = c
}

func (p *Pool) sawClosed(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trust.sawClosed(c.idle)
}

// Dial makes a new connection for a request that must not meet one that was used before.
func (p *Pool) Dial(ctx context.Context) (*Conn, error) {
	nc, err := p.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := newConn(p, nc)
	c.begin()
	return c, nil
}

// Connect connects once, in a time that grows with each attempt that ran out of it, and leaves the
// connection to the caller.
func (p *Pool) Connect(ctx context.Context) (net.Conn, error) {
	patience := time.Duration(p.patience.Load())
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	nc, err := p.dial(short, p.to)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			p.patience.Store(int64(min(2*patience, longDial)))
		}
		return nil, fmt.Errorf("%w: connecting to %s: %w", ErrUnreachable, p.to, err)
	}
	p.patience.Store(int64(firstDial))
	return nc, nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Done takes a connection back after an exchange: kept if it can carry another request.
func (p *Pool) Done(c *Conn, now time.Time) {
	clean := c.keep && c.br.Buffered() == 0 && !c.closed.Load() && (c.pump == nil || c.pump.complete())
	c.end()
	if !clean || !p.put(c, now) {
		c.Close() // no longer needed
	}
}

// Discard closes a connection whose exchange went wrong.
func (p *Pool) Discard(c *Conn) {
	if c.reused && c.deserted {
		p.sawClosed(c)
	}
	c.Close()
	c.end()
}

func (p *Pool) put(c *Conn, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdle {
		return false
	}
	if c.reused {
		p.trust.sawAlive(c.idle)
	}
	c.idleSince = now
	p.idle = append(p.idle, c)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(idleFor, p.expire)
	}
	return true
}

// expire closes connections that nobody used for long; its timer runs only while some are idle.
func (p *Pool) expire() {
	p.mu.Lock()
	old := 0
	limit := time.Now().Add(-idleFor)
	for old < len(p.idle) && p.idle[old].idleSince.Before(limit) {
		old++
	}
	dead := append([]*Conn(nil), p.idle[:old]...)
	p.idle = append(p.idle[:0], p.idle[old:]...)
	p.sweep = nil
	if len(p.idle) > 0 && !p.closed {
		p.sweep = time.AfterFunc(idleFor, p.expire)
	}
	p.mu.Unlock()
	for _, c := range dead {
		c.Close() // idle for too long
	}
}

// Close closes all idle connections; those in use end with their exchange.
func (p *Pool) Close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	if p.sweep != nil {
		p.sweep.Stop()
		p.sweep = nil
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.Close() // the instance is gone
	}
	return nil
}

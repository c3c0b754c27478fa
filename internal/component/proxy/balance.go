package proxy

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errNoEndpoint means nothing stands behind a front.
var errNoEndpoint = errors.New("no endpoint")

// choice is what a balancer chooses from; replaced whole.
type choice struct {
	endpoints []netip.AddrPort
	sources   []netip.Prefix
	affinity  time.Duration
	sticky    *affinities
	local     func(net.Conn)
}

// balancer spreads the connections of a front over its endpoints in turn.
type balancer struct {
	turn atomic.Uint32
	now  atomic.Pointer[choice]
}

func newBalancer() *balancer {
	b := &balancer{}
	b.turn.Store(rand.Uint32())
	b.now.Store(&choice{})
	return b
}

func (b *balancer) set(f front, sticky *affinities) {
	b.now.Store(&choice{endpoints: f.endpoints, sources: f.sources, affinity: f.affinity, sticky: sticky, local: f.local})
}

// admits tells whether the front lets the client in.
func (c *choice) admits(client netip.Addr) bool {
	for _, p := range c.sources {
		if p.Contains(client) {
			return true
		}
	}
	return len(c.sources) == 0
}

// order lists the endpoints in the order a client should try them: its own first if it has one,
// then in turn.
func (b *balancer) order(client netip.Addr) []netip.AddrPort {
	c := b.now.Load()
	if len(c.endpoints) == 0 {
		return nil
	}
	start := int(b.turn.Add(1)) % len(c.endpoints)
	out := make([]netip.AddrPort, 0, len(c.endpoints)+1)
	if c.affinity > 0 {
		if own, ok := c.sticky.find(client, c.affinity); ok && slices.Contains(c.endpoints, own) {
			out = append(out, own)
		}
	}
	out = append(out, c.endpoints[start:]...)
	return append(out, c.endpoints[:start]...)
}

// chose notes where a client went.
func (b *balancer) chose(client netip.Addr, at netip.AddrPort) {
	if c := b.now.Load(); c.affinity > 0 {
		c.sticky.keep(client, at)
	}
}

// maxAffinities bounds the clients remembered per Service port.
const maxAffinities = 16384

// affinities remembers which endpoint a client has.
type affinities struct {
	mu  sync.Mutex // guards all
	all map[netip.Addr]affinityEntry
}

type affinityEntry struct {
	at   netip.AddrPort
	used time.Time
}

func newAffinities() *affinities { return &affinities{all: map[netip.Addr]affinityEntry{}} }

// find returns the client's endpoint if it was used within the time.
func (a *affinities) find(client netip.Addr, within time.Duration) (netip.AddrPort, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.all[client]
	if ok && time.Since(e.used) > within {
		delete(a.all, client)
		return netip.AddrPort{}, false
	}
	return e.at, ok
}

// keep notes the client's endpoint; when full it forgets the oldest of a few.
func (a *affinities) keep(client netip.Addr, at netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.all[client]; !known && len(a.all) >= maxAffinities {
		var oldest netip.Addr
		var when time.Time
		sample := 0
		for c, e := range a.all {
			if sample == 0 || e.used.Before(when) {
				oldest, when = c, e.used
			}
			if sample++; sample == 16 {
				break
			}
		}
		delete(a.all, oldest)
	}
	a.all[client] = affinityEntry{at: at, used: time.Now()}
}

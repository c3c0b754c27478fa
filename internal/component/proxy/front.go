package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// serving is what is open for a Service.
type serving struct {
	fronts map[place]*open
	sticky map[int32]*affinities // by Service port, shared by its fronts
	health *healthCheck          // nil for most Services
}

// open is a front with its balancer and, while it has endpoints or a handler, its listener.
type open struct {
	balancer *balancer
	claimed  bool
	listener io.Closer // nil while there is nothing behind it
}

// apply opens, changes and closes fronts until the Service has exactly those wanted. What fails is
// reported and tried again; the rest is served meanwhile. A Service that is gone is nil.
func (p *Proxy) apply(ctx context.Context, key types.NamespacedName, svc *corev1.Service, wanted []front) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state[key]
	if s == nil {
		if len(wanted) == 0 {
			return nil
		}
		s = &serving{fronts: map[place]*open{}, sticky: map[int32]*affinities{}}
		p.state[key] = s
	}
	keep := map[place]bool{}
	for _, f := range wanted {
		keep[f.place] = true
	}
	for at := range s.fronts {
		if !keep[at] {
			p.closeFront(s, at)
		}
	}
	var errs []error
	for _, f := range wanted {
		errs = append(errs, p.applyFront(ctx, s, f))
	}
	errs = append(errs, p.applyHealth(ctx, key, s, svc, wanted))
	if len(s.fronts) == 0 && s.health == nil {
		delete(p.state, key)
	}
	return errors.Join(errs...)
}

// applyFront updates one front. The lock is held.
func (p *Proxy) applyFront(ctx context.Context, s *serving, f front) error {
	o, err := p.front(s, f)
	if err != nil {
		return err
	}
	if f.affinity > 0 && s.sticky[f.port] == nil {
		s.sticky[f.port] = newAffinities()
	}
	o.balancer.set(f, s.sticky[f.port])
	switch served := len(f.endpoints) > 0 || f.local != nil; {
	case served && o.listener == nil:
		l, err := p.listen(ctx, f, o.balancer)
		if err != nil {
			return fmt.Errorf("listening for a Service at %s/%s: %w", f.at, f.protocol, err)
		}
		o.listener = l
		p.metrics.listeners.Inc()
	case !served && o.listener != nil:
		p.closeListener(o)
	case served:
		if u, ok := o.listener.(*packetFront); ok {
			u.prune()
		}
	}
	return nil
}

// front finds or makes the state of one front. The lock is held.
func (p *Proxy) front(s *serving, f front) (*open, error) {
	if o := s.fronts[f.place]; o != nil {
		return o, nil
	}
	if f.claimed {
		if err := p.cfg.Net.Claim(f.at.Addr()); err != nil {
			return nil, fmt.Errorf("claiming external address %s: %w", f.at.Addr(), err)
		}
	}
	o := &open{balancer: newBalancer(), claimed: f.claimed}
	s.fronts[f.place] = o
	return o, nil
}

// listen opens the socket of a front and serves it.
func (p *Proxy) listen(ctx context.Context, f front, b *balancer) (io.Closer, error) {
	if f.protocol == corev1.ProtocolUDP {
		return p.openPacketFront(ctx, f.at, b)
	}
	return p.openStreamFront(ctx, f.at, b)
}

// closeFront closes the front at a place. The lock is held.
func (p *Proxy) closeFront(s *serving, at place) {
	o := s.fronts[at]
	delete(s.fronts, at)
	p.closeListener(o)
	if o.claimed && !p.claimedElsewhere(at.at.Addr()) {
		if err := p.cfg.Net.Disclaim(at.at.Addr()); err != nil {
			p.log.Warn("giving up an external address", "address", at.at.Addr().String(), "error", err)
		}
	}
}

// claimedElsewhere tells whether another front still needs the address. The lock is held.
func (p *Proxy) claimedElsewhere(addr netip.Addr) bool {
	for _, s := range p.state {
		for at, o := range s.fronts {
			if o.claimed && at.at.Addr() == addr {
				return true
			}
		}
	}
	return false
}

func (p *Proxy) closeListener(o *open) {
	if o.listener == nil {
		return
	}
	if err := o.listener.Close(); err != nil {
		p.log.Warn("closing a Service's listener", "error", err)
	}
	o.listener = nil
	p.metrics.listeners.Dec()
}

package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Sessions are bounded; a finished one is kept until the last of its packets have surely passed.
const (
	maxSessions = 20000
	firstPort   = 1024
	afterlife   = 30 * time.Second
)

// session is a TCP connection of a pod:
//
//	dialling ─► ready (packets pass) ─► finished ─► forgotten
//	    ╰─► refused: forgotten
type session struct {
	tuple tuple
	port  uint16   // of the guest it appears as
	far   net.Conn // the dialled connection; set when ready
	ready bool

	finished bool
}

// segment handles a TCP packet from a pod, or from the relay's listener on its way to one.
func (r *Relay) segment(p packet) {
	t := p.tuple()
	if t.source == netip.AddrPortFrom(desk, r.port) {
		r.mu.Lock()
		s := r.byPort[t.target.Port()]
		r.mu.Unlock()
		if s != nil {
			p.readdress(tuple{s.tuple.target, s.tuple.source})
			r.send(p)
		}
		return
	}
	flags := p.body()[tcpFlags]
	opening := flags&(flagSYN|flagACK|flagRST) == flagSYN
	r.mu.Lock()
	s := r.sessions[t]
	if opening && (s == nil || s.finished) {
		s = r.begin(t)
		if s != nil {
			syn := slices.Clone(p)
			r.running.Go(func() { r.connect(s, syn) })
		}
		r.mu.Unlock()
		return
	}
	pass := s != nil && s.ready
	r.mu.Unlock()
	switch {
	case pass:
		r.inject(s, p)
	case s == nil && flags&flagRST == 0:
		r.send(p.refusal())
	}
}

// inject sends a pod's packet to the relay's listener.
func (r *Relay) inject(s *session, p packet) {
	p.readdress(tuple{netip.AddrPortFrom(guest, s.port), netip.AddrPortFrom(desk, r.port)})
	r.send(p)
}

// begin notes a new session under a free port; nil if there are too many. The lock is held.
func (r *Relay) begin(t tuple) *session {
	if len(r.byPort) >= maxSessions {
		return nil
	}
	for {
		r.lastPort++
		if r.lastPort < firstPort {
			r.lastPort = firstPort
		}
		if r.byPort[r.lastPort] == nil {
			break
		}
	}
	s := &session{tuple: t, port: r.lastPort}
	r.sessions[t], r.byPort[s.port] = s, s
	return s
}

// connect dials the far side and lets the pod's first packet go on, or tells the pod why not.
func (r *Relay) connect(s *session, syn packet) {
	far, err := r.dial("tcp4", s.tuple.target)
	if err != nil {
		r.forget(s)
		r.log.Debug("relaying a connection", "to", s.tuple.target.String(), "error", err)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			r.send(syn.refusal())
		}
		return
	}
	r.mu.Lock()
	s.far, s.ready = far, true
	closed := r.ctx.Err() != nil
	r.mu.Unlock()
	if closed {
		_ = far.Close()
		return
	}
	r.inject(s, syn)
}

func (r *Relay) forget(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byPort[s.port] == s {
		delete(r.byPort, s.port)
	}
	if r.sessions[s.tuple] == s {
		delete(r.sessions, s.tuple)
	}
}

// accept joins what arrives at the listener with what was dialled for it.
func (r *Relay) accept() {
	for {
		near, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			r.log.Warn("accepting a relayed connection", "error", err)
			<-time.After(10 * time.Millisecond)
			continue
		}
		from, err := netip.ParseAddrPort(near.RemoteAddr().String())
		r.mu.Lock()
		s := r.byPort[from.Port()]
		known := err == nil && from.Addr() == guest && s != nil && s.ready && !s.finished
		r.mu.Unlock()
		if !known {
			_ = near.Close()
			continue
		}
		r.running.Go(func() { r.join(s, near) })
	}
}

// join copies between pod and far side until both have ended, and forgets the session a while later.
func (r *Relay) join(s *session, near net.Conn) {
	stop := make(chan struct{})
	r.running.Go(func() {
		select {
		case <-r.ctx.Done():
			_ = near.Close()
		case <-stop:
		}
	})
	var both sync.WaitGroup
	both.Go(func() { forward(near, s.far) })
	forward(s.far, near)
	both.Wait()
	close(stop)
	_ = near.Close()
	_ = s.far.Close()
	r.mu.Lock()
	s.finished = true
	r.mu.Unlock()
	time.AfterFunc(afterlife, func() { r.forget(s) })
}

// forward copies until src ends and passes the end on: a finished stream as such, a broken one by
// breaking both.
func forward(dst, src net.Conn) {
	if _, err := io.Copy(dst, src); err != nil {
		for _, c := range []net.Conn{dst, src} {
			if t, ok := c.(*net.TCPConn); ok && errors.Is(err, syscall.ECONNRESET) {
				_ = t.SetLinger(0)
			}
			_ = c.Close()
		}
		return
	}
	if half, ok := dst.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

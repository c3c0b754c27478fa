package process

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// A Relay is a way to a server that can be cut, silenced and slowed.
type Relay struct {
	Address string
	*Line
}

// NewRelay listens on a free port and leads to target until the test ends.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l := newLine(t)
	address, err := l.lead(target)
	if err != nil {
		t.Fatal(err)
	}
	return &Relay{Address: address, Line: l}
}

// A Net leads wherever its Dial is asked to, by relays that share what becomes of them.
type Net struct {
	*Line

	mu     sync.Mutex
	relays map[string]string // by target
}

// NewNet returns a net that lasts until the test ends.
func NewNet(t testing.TB) *Net {
	t.Helper()
	return &Net{Line: newLine(t), relays: map[string]string{}}
}

// Dial connects to an address by a relay.
func (n *Net) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	at, known := n.relays[address]
	if !known {
		var err error
		if at, err = n.lead(address); err != nil {
			n.mu.Unlock()
			return nil, err
		}
		n.relays[address] = at
	}
	n.mu.Unlock()
	return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, at)
}

// A Line is what relays have in common. It is whole at first, and again after Heal:
//
//	whole ──Cut, Reset──▶ connections end, and new ones do so at once
//	      ──Hold────────▶ connections are taken, and nothing passes
//	      ──Delay, Limit▶ answers are late, or end in the middle
type Line struct {
	mu        sync.Mutex // guards the fields below
	cut       bool
	passes    chan struct{} // closed while anything passes
	delay     time.Duration // of every piece of an answer
	limit     int           // bytes of answers that pass on a connection; 0: all
	accepted  int
	links     map[*link]struct{}
	listeners []net.Listener
	ended     bool
}

// A link is a connection on its way through a relay.
type link struct {
	in, out net.Conn
	done    chan struct{} // closed when it has ended
	end     func()
}

func newLine(t testing.TB) *Line {
	l := &Line{passes: make(chan struct{}), links: map[*link]struct{}{}}
	close(l.passes)
	t.Cleanup(func() {
		l.mu.Lock()
		l.ended = true
		for _, listener := range l.listeners {
			_ = listener.Close()
		}
		l.mu.Unlock()
		l.Cut()
	})
	return l
}

// lead begins to listen for connections to a target, and returns where.
func (l *Line) lead(target string) (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		_ = listener.Close()
		return "", net.ErrClosed
	}
	l.listeners = append(l.listeners, listener)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn, target)
		}
	}()
	return listener.Addr().String(), nil
}

// Cut ends all connections and refuses new ones.
func (l *Line) Cut() { l.end(true, false) }

// Reset is Cut without a farewell: who uses a connection is told that it was reset.
func (l *Line) Reset() { l.end(true, true) }

// Drop ends all connections; new ones are welcome.
func (l *Line) Drop() { l.end(false, false) }

func (l *Line) end(cut, hard bool) {
	l.mu.Lock()
	l.cut = cut
	links := make([]*link, 0, len(l.links))
	for one := range l.links {
		links = append(links, one)
	}
	l.mu.Unlock()
	for _, one := range links {
		if in, isTCP := one.in.(*net.TCPConn); isTCP && hard {
			_ = in.SetLinger(0)
		}
		one.end()
	}
}

// Hold lets nothing pass: connections stay, and new ones are taken, but nobody answers.
func (l *Line) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.passes:
		l.passes = make(chan struct{})
	default:
	}
}

// Delay has every piece of an answer take that much longer.
func (l *Line) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Limit ends each new connection after that many bytes of answers.
func (l *Line) Limit(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = n
}

// Heal makes it whole. What was held back passes now.
func (l *Line) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.delay, l.limit = false, 0, 0
	select {
	case <-l.passes:
	default:
		close(l.passes)
	}
}

// Accepted tells how many connections there have been.
func (l *Line) Accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}

// Open tells how many connections there are.
func (l *Line) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.links)
}

func (l *Line) serve(in net.Conn, target string) {
	out, err := net.Dial("tcp", target)
	if err != nil {
		_ = in.Close()
		return
	}
	one := &link{in: in, out: out, done: make(chan struct{})}
	one.end = sync.OnceFunc(func() {
		close(one.done)
		_ = in.Close()
		_ = out.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.links, one)
	})
	defer one.end()
	l.mu.Lock()
	l.accepted++
	cut, limit := l.cut, l.limit
	if !cut {
		l.links[one] = struct{}{}
	}
	l.mu.Unlock()
	if cut {
		return
	}
	go func() {
		defer one.end()
		for pass := l.pass(one, out, in); ; {
			if pass(0, false) < 0 {
				return
			}
		}
	}()
	for pass, left := l.pass(one, in, out), limit; ; {
		n := pass(left, true)
		if n < 0 || limit > 0 && n >= left {
			return
		}
		left -= n
	}
}

// pass returns a function that passes one piece on, up to so many bytes if that is above 0, and tells
// how many; -1 when the connection has ended.
func (l *Line) pass(one *link, to, from net.Conn) func(most int, answer bool) int {
	buffer := make([]byte, 32<<10)
	return func(most int, answer bool) int {
		n, err := from.Read(buffer)
		if err != nil {
			return -1
		}
		if most > 0 {
			n = min(n, most)
		}
		l.mu.Lock()
		passes, delay := l.passes, l.delay
		l.mu.Unlock()
		select {
		case <-one.done:
			return -1
		case <-passes:
		}
		if answer && delay > 0 {
			select {
			case <-one.done:
				return -1
			case <-time.After(delay):
			}
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return -1
		}
		return n
	}
}

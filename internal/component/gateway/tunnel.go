package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"ebb.dev/ebb/internal/component/gateway/h1"
)

// lastWords is how long one side of a tunnel may go on after the other has ended.
const lastWords = 10 * time.Second

// tunnel is a connection that switched to another protocol, such as WebSocket.
type tunnel struct {
	client, backend net.Conn
	moved           atomic.Int64 // when the instance's last byte came, Unix nanoseconds
	answered        atomic.Bool  // a byte came from the instance after the switch
	once            sync.Once
}

// tunnel joins the client's connection with the instance's until either ends. The slot counts as an
// upgraded one meanwhile.
func (c *call) tunnel(conn *h1.Conn) verdict {
	a, slot := c.rev.admitter, c.slot
	c.slot = nil
	a.Upgrade(slot)
	defer a.ReleaseUpgraded(slot)
	c.status, c.switched = http.StatusSwitchingProtocols, time.Now()
	head := c.w.Header()
	client, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		conn.Close() // nothing to tunnel to
		c.refuseBroken("UpgradeFailed", "the connection cannot switch protocols")
		return over
	}
	backend, ahead := conn.Take()
	t := &tunnel{client: client, backend: backend}
	defer t.close()
	if !c.g.enter(t) {
		return over
	}
	defer c.g.leave(t)
	if writeSwitch(buffered.Writer, head, ahead) != nil {
		return over
	}
	t.answered.Store(len(ahead) > 0)
	t.moved.Store(time.Now().UnixNano())
	for _, side := range []net.Conn{client, backend} {
		_ = side.SetDeadline(time.Time{}) // a dead connection shows at once
	}
	stop := t.watch(c)
	defer stop()
	t.join(buffered.Reader)
	return over
}

// writeSwitch tells the client that the protocol switches, and what the instance sent already.
func writeSwitch(w *bufio.Writer, head http.Header, ahead []byte) error {
	_, _ = w.WriteString("HTTP/1.1 101 Switching Protocols\r\n") // Flush tells
	_ = head.Write(w)                                            // Flush tells
	_, _ = w.WriteString("\r\n")                                 // Flush tells
	_, _ = w.Write(ahead)                                        // Flush tells
	return w.Flush()
}

// join copies both ways until both have ended.
func (t *tunnel) join(fromClient *bufio.Reader) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.copy(t.backend, fromClient, nil)
		t.half(t.backend, t.client)
	}()
	t.copy(t.client, t.backend, t.heard)
	t.half(t.client, t.backend)
	<-done
}

// half ends the direction to dst; the other one gets a little time.
func (t *tunnel) half(dst, src net.Conn) {
	if h, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // it may have ended
	}
	limit := time.Now().Add(lastWords)
	_ = dst.SetReadDeadline(limit)  // it may have ended
	_ = src.SetWriteDeadline(limit) // it may have ended
}

// heard notes that the instance sent something.
func (t *tunnel) heard() {
	t.moved.Store(time.Now().UnixNano())
	t.answered.Store(true)
}

// copy passes bytes on, telling heard of each read.
func (t *tunnel) copy(dst io.Writer, src io.Reader, heard func()) {
	buf := h1.Scratch()
	defer h1.Unscratch(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if heard != nil {
				heard()
			}
			if _, werr := dst.Write((*buf)[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// watch ends the tunnel when one of the revision's timeouts is over; call stop to end watching. The
// response starts with the instance's first byte after the switch.
func (t *tunnel) watch(c *call) (stop func()) {
	s, total, began := *c.settings, c.total, time.Now()
	var timer *time.Timer
	var mu sync.Mutex // guards timer
	var check func()
	next := func() (time.Time, bool) {
		d := total
		if s.ResponseStartTimeout > 0 && !t.answered.Load() {
			d = earlier(d, began.Add(s.ResponseStartTimeout))
		}
		if s.IdleTimeout > 0 {
			d = earlier(d, time.Unix(0, t.moved.Load()).Add(s.IdleTimeout))
		}
		return d, !d.IsZero()
	}
	check = func() {
		at, bounded := next()
		if !bounded {
			return
		}
		left := time.Until(at)
		if left <= 0 {
			t.close()
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Reset(left)
		}
	}
	at, bounded := next()
	if !bounded {
		return func() {}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(time.Until(at), check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
		timer = nil
	}
}

// close ends both connections.
func (t *tunnel) close() {
	t.once.Do(func() {
		t.client.Close()
		t.backend.Close()
	})
}

// enter registers a tunnel for Shutdown; false means it is too late.
func (g *Gateway) enter(t *tunnel) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return false
	}
	g.tunnels[t] = struct{}{}
	return true
}

func (g *Gateway) leave(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tunnels, t)
}

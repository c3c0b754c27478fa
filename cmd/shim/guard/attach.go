package guard

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// hubFrames bounds what is kept for a client that reads slowly; then it is let go, because the
// container must not wait for it.
const hubFrames = 64

// hub copies a container's output to everybody attached.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
	ended     string // why there is no more, once there is no more
}

type listener struct{ frames chan wire.Frame }

func newHub() *hub { return &hub{listeners: map[*listener]struct{}{}} }

func (h *hub) join() *listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &listener{frames: make(chan wire.Frame, hubFrames+1)}
	if h.ended != "" {
		l.frames <- wire.Frame{End: h.ended}
		close(l.frames)
		return l
	}
	h.listeners[l] = struct{}{}
	return l
}

func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(l, "left")
}

// drop ends one listener; the lock is held. There is always room for this last frame.
func (h *hub) drop(l *listener, why string) {
	if _, ok := h.listeners[l]; !ok {
		return
	}
	delete(h.listeners, l)
	l.frames <- wire.Frame{End: why}
	close(l.frames)
}

func (h *hub) send(stream int, p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.listeners) == 0 {
		return
	}
	data := append([]byte(nil), p...)
	for l := range h.listeners {
		if len(l.frames) >= hubFrames {
			h.drop(l, "output came faster than it was read")
			continue
		}
		l.frames <- wire.Frame{Stream: stream, Data: data}
	}
}

func (h *hub) end(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = why
	for l := range h.listeners {
		h.drop(l, why)
	}
}

// attach turns the connection into frames until either side ends it.
func (g *guard) attach(conn *wire.Conn, a wire.Attach) error {
	c, err := g.find(a.ID)
	if err != nil {
		return err
	}
	if a.Stdin && c.stdin.closed() {
		return errors.New("the container has no stdin")
	}
	l := c.hub.join()
	if err := conn.Send(wire.Reply{Started: true}); err != nil {
		c.hub.leave(l)
		return err
	}
	go func() {
		c.receive(conn, a.Stdin)
		c.hub.leave(l)
	}()
	for f := range l.frames {
		if err := conn.Send(f); err != nil {
			c.hub.leave(l)
		}
	}
	if a.Stdin && c.start.StdinOnce {
		c.stdin.close()
	}
	return errors.New("ended")
}

// receive takes input and terminal sizes from an attached client until it hangs up.
func (c *container) receive(conn *wire.Conn, stdin bool) {
	for {
		var f wire.Frame
		fds, err := conn.Recv(&f)
		wire.CloseFDs(fds)
		if err != nil {
			return
		}
		switch {
		case f.Stream == 3:
			c.stdin.resize(f.Size)
		case !stdin:
		case len(f.Data) > 0:
			_ = c.stdin.write(f.Data) // the program may have closed its stdin
		case c.start.StdinOnce:
			c.stdin.close()
		}
	}
}

func (i *input) closed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.file == nil
}

// resize tells a terminal its size; other inputs have none.
func (i *input) resize(s wire.Size) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.file == nil || !i.keep || s.Width == 0 || s.Height == 0 {
		return
	}
	raw, err := i.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width})
	})
}

package endpoint

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	// soonest is the first pause after an attempt that failed; the next ones double.
	soonest = 100 * time.Millisecond
	// lost bounds them while a server cannot be reached: once it can, it is asked within a second.
	lost = 500 * time.Millisecond
	// longest bounds them where a server is there and refuses: it notes each attempt in its log, and
	// may lock out who makes many.
	longest = 5 * time.Second
)

// ErrLost marks errors of the way to a server that cannot be told from what the server says.
var ErrLost = errors.New("the connection was lost")

// Lost tells that an error is one of the way to a server, and nothing that the server said.
func Lost(err error) bool {
	if _, isSystem := errors.AsType[syscall.Errno](err); isSystem {
		return true
	}
	if _, isNet := errors.AsType[*net.OpError](err); isNet {
		return true
	}
	for _, one := range []error{ErrLost, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.DeadlineExceeded} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// Hurry has attempts that fail be repeated at once from now on, for tests of many.
func (p *Pool) Hurry() { p.hurried.Store(true) }

// Rest is how long to wait where d is usual.
func (p *Pool) Rest(d time.Duration) time.Duration {
	if p.hurried.Load() {
		return min(d, time.Millisecond)
	}
	return d
}

// Pause is how long to wait after an attempt that failed with err, and after a pause before it, or 0.
func (p *Pool) Pause(before time.Duration, err error) time.Duration {
	most := longest
	if Lost(err) {
		most = lost
	}
	return p.Rest(min(max(2*before, soonest), most))
}

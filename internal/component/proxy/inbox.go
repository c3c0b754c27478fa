package proxy

import (
	"net"
	"net/netip"
	"sync"
)

// An Inbox is a listener fed by a Local handler, for servers that want to accept connections
// themselves: put Deliver into Config.Local and serve the Inbox.
type Inbox struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewInbox makes one that calls itself addr.
func NewInbox(addr netip.AddrPort) *Inbox {
	return &Inbox{addr: net.TCPAddrFromAddrPort(addr), conns: make(chan net.Conn, 256), done: make(chan struct{})}
}

// Deliver hands a connection over; one that finds the inbox full or closed is reset.
func (i *Inbox) Deliver(c net.Conn) {
	select {
	case <-i.done:
		reset(c)
		return
	default:
	}
	select {
	case i.conns <- c:
	case <-i.done:
		reset(c)
	default:
		reset(c)
	}
}

// Accept returns the next connection, or net.ErrClosed after Close.
func (i *Inbox) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}

// Close stops accepting; connections delivered and not accepted are reset.
func (i *Inbox) Close() error {
	i.once.Do(func() {
		close(i.done)
		for {
			select {
			case c := <-i.conns:
				reset(c)
			default:
				return
			}
		}
	})
	return nil
}

// Addr is the address the inbox was made with.
func (i *Inbox) Addr() net.Addr { return i.addr }

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// ErrAddressInUse means another program has the API's address.
var ErrAddressInUse = errors.New("address in use")

// listenAPI opens the API's loopback address; where it is taken the error says what to do.
func listenAPI(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("listening for the Kubernetes API: port %s is taken by another program; stop it or choose another address with --api (tried %s): %w", port, address, ErrAddressInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("listening for the Kubernetes API on %s: %w; choose another address with --api", address, err)
	}
	return l, nil
}

// merged is several listeners as one. Its address is the first one's.
type merged struct {
	listeners []net.Listener
	accepted  chan accepted
	closed    chan struct{}
	once      sync.Once
	err       error // of closing; written once
}

type accepted struct {
	conn net.Conn
	err  error
}

// mergeListeners joins host and node, whose ports must agree: the API server knows one port only.
func mergeListeners(host, node net.Listener) (net.Listener, error) {
	if node == nil {
		return host, nil
	}
	hostAddr, ok1 := host.Addr().(*net.TCPAddr)
	nodeAddr, ok2 := node.Addr().(*net.TCPAddr)
	if !ok1 || !ok2 || hostAddr.Port != nodeAddr.Port {
		return nil, fmt.Errorf("joining listeners: %v and %v must be TCP with the same port", host.Addr(), node.Addr())
	}
	m := &merged{listeners: []net.Listener{host, node}, accepted: make(chan accepted), closed: make(chan struct{})}
	for _, l := range m.listeners {
		go m.pump(l)
	}
	return m, nil
}

func (m *merged) pump(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return // by Close, or its network is gone; the other one goes on
		}
		select {
		case m.accepted <- accepted{conn, err}:
		case <-m.closed:
			if err == nil {
				_ = conn.Close() // nobody is there to answer it
			}
			return
		}
	}
}

func (m *merged) Accept() (net.Conn, error) {
	select {
	case a := <-m.accepted:
		return a.conn, a.err
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *merged) Close() error {
	m.once.Do(func() {
		close(m.closed)
		for _, l := range m.listeners {
			m.err = errors.Join(m.err, l.Close())
		}
	})
	return m.err
}

func (m *merged) Addr() net.Addr { return m.listeners[0].Addr() }

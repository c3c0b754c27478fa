package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrName means an address was not a literal IP: names are not resolved inside the namespace.
var ErrName = errors.New("not a literal IP address and port")

// Listen opens a listener inside the namespace; addr is a literal IPv4 address and port.
func (n *Net) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	return n.inner.Listen(ctx, network, addr)
}

// ListenPacket opens a packet socket inside the namespace; addr is a literal address and port.
func (n *Net) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	return n.inner.ListenPacket(ctx, network, addr)
}

// DialContext connects from inside the namespace; addr is a literal address and port. It waits as
// long as ctx allows: callers that can try another address give it a short deadline.
func (n *Net) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.inner.DialContext(ctx, network, addr)
}

// Listen opens a listener in the space; addr is a literal address and port.
func (s *Space) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	if _, err := literal(addr); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // splice works on plain TCP only
	var l net.Listener
	err := s.Do(func() (err error) {
		l, err = lc.Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// ListenPacket opens a packet socket in the space; addr is a literal address and port.
func (s *Space) ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error) {
	if _, err := literal(addr); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	var c net.PacketConn
	err := s.Do(func() (err error) {
		c, err = lc.ListenPacket(ctx, network, addr)
		return err
	})
	return c, err
}

// DialContext connects from the space; addr is a literal address and port.
func (s *Space) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := literal(addr)
	if err != nil {
		return nil, err
	}
	switch network {
	case "tcp", "tcp4":
		return s.dialStream(ctx, to)
	}
	var d net.Dialer
	var c net.Conn
	err = s.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, addr) // connecting a datagram socket does not wait
		return err
	})
	return c, err
}

func literal(addr string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ap, fmt.Errorf("using address %q: %w", addr, ErrName)
	}
	return ap, nil
}

// dialStream opens the socket inside and waits for the connection outside, so that no thread is
// held while the other side takes its time.
func (s *Space) dialStream(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if !to.Addr().Is4() {
		return nil, fmt.Errorf("connecting to %s: %w", to, unix.EAFNOSUPPORT)
	}
	var fd int
	var pending error
	err := s.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			pending = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "tcp")
	defer func() { _ = f.Close() }()
	if errors.Is(pending, unix.EINPROGRESS) {
		pending = awaitConnect(ctx, f)
	}
	if pending != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", pending)}
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("adopting a socket: %w", err)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
		_ = tcp.SetNoDelay(true)
	}
	return c, nil
}

// awaitConnect waits until the socket is connected, refused, or ctx ends.
func awaitConnect(ctx context.Context, f *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			result = err
		case code != 0:
			result = unix.Errno(code)
		default:
			if _, err := unix.Getpeername(int(fd)); err != nil {
				return false // still connecting
			}
		}
		return true
	})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return result
}

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// connectTime is how long one try to connect may take: a lost packet must not cost the kernel's
// whole second.
const connectTime = 100 * time.Millisecond

// Dial implements runtime.Runtime. The socket is made in the sandbox's network namespace and used
// from ours, so it needs no route; refused connections are told at once.
func (r *Runtime) Dial(ctx context.Context, sandboxID string, port uint16) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, fmt.Errorf("connecting to port %d of sandbox %s: %w", port, sandboxID, err)
	}
	s, err := r.sandbox(sandboxID)
	if err != nil {
		return fail(err)
	}
	if _, up := s.view(); !up || !s.alive() {
		return fail(runtime.ErrNotRunning)
	}
	if program := s.runtime.node.oci[s.spec.Handler]; program.kernel {
		conn, err := s.dialKernel(ctx, program, port)
		if err != nil {
			return fail(err)
		}
		return conn, nil
	}
	for {
		conn, err := s.connect(ctx, port)
		if err == nil {
			return conn, nil
		}
		if !os.IsTimeout(err) || ctx.Err() != nil {
			return fail(err)
		}
	}
}

// connect tries once, over IPv4 and then IPv6.
func (s *sandbox) connect(ctx context.Context, port uint16) (net.Conn, error) {
	v4 := &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
	conn, err := s.connectTo(ctx, unix.AF_INET, v4)
	if !errors.Is(err, unix.ECONNREFUSED) {
		return conn, err
	}
	v6 := &unix.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}}
	if conn, err6 := s.connectTo(ctx, unix.AF_INET6, v6); err6 == nil {
		return conn, nil
	}
	return nil, err
}

func (s *sandbox) connectTo(ctx context.Context, family int, to unix.Sockaddr) (net.Conn, error) {
	var fd int
	err := inNetns(s.Guard.ns("net"), func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making a socket in the pod's network: %w", err)
	}
	err = unix.Connect(fd, to)
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "pod")
	defer f.Close() // FileConn has its own
	if err != nil {
		if err := awaitConnect(ctx, f); err != nil {
			return nil, err
		}
	}
	return net.FileConn(f)
}

// awaitConnect waits until the socket is connected.
func awaitConnect(ctx context.Context, f *os.File) error {
	deadline := time.Now().Add(connectTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := f.SetWriteDeadline(deadline); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	code, asked := 0, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		if code, asked = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); asked != nil || code != 0 {
			return true
		}
		_, pending := unix.Getpeername(int(fd))
		return pending == nil
	})
	switch {
	case err != nil:
		return err
	case asked != nil:
		return asked
	case code != 0:
		return unix.Errno(code)
	}
	return nil
}

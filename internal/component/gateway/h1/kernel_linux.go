package h1

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

var errPipe error = unix.EPIPE

// kernel asks the kernel about a TCP connection.
type kernel struct {
	raw syscall.RawConn // nil for other connections
	ask *question
}

// question keeps what a look at the socket needs, so that none allocates.
type question struct {
	fds   [1]unix.PollFd
	ready int
	err   error
	peek  func(fd uintptr)
}

func kernelOf(nc net.Conn) kernel {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return kernel{}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return kernel{}
	}
	q := &question{}
	q.peek = func(fd uintptr) {
		q.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP} // a file descriptor
		q.ready, q.err = unix.Poll(q.fds[:], 0)
	}
	return kernel{raw: raw, ask: q}
}

// silent reports whether nothing came from the other side: neither data nor its end.
func (k kernel) silent() bool {
	if k.raw == nil {
		return true
	}
	if err := k.raw.Control(k.ask.peek); err != nil {
		return false
	}
	return k.ask.err == nil && k.ask.ready == 0
}

// acked returns how many bytes the other side acknowledged in the connection's life.
func (k kernel) acked() (int64, bool) {
	if k.raw == nil {
		return 0, false
	}
	var (
		info *unix.TCPInfo
		err  error
	)
	if e := k.raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); e != nil || err != nil {
		return 0, false
	}
	return int64(info.Bytes_acked), true // far below the limit
}

// PeerClosed reports whether the other side of a TCP connection has ended it, even while there is
// data nobody has read.
func PeerClosed(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} // a file descriptor
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
			closed = fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		}
	})
	return closed || err != nil
}

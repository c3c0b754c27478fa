// Package wire is what ebb and its pod guardian say to each other.
//
// A message is a four byte length and JSON, with file descriptors riding along. JSON because a
// guardian outlives the ebb that started it: a newer ebb must still be understood. The package is
// linked into the guardian, so it may import the standard library and x/sys only.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxFDs is how many descriptors one message can carry; the kernel's own limit is 253.
const MaxFDs = 250

// maxMessage bounds what a peer can make us keep.
const maxMessage = 16 << 20

// Errors of a Conn.
var (
	ErrTooManyFDs = errors.New("more files than one message can carry (" + strconv.Itoa(MaxFDs) + ")")
	ErrTooLong    = errors.New("message is longer than 16 MiB")
)

// Conn sends and receives messages over a unix stream socket.
//
// Send may be called from several goroutines; Recv from one at a time.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	mu   sync.Mutex // held while one message is written
}

// New takes over the socket fd. A non-blocking one is waited for by the runtime's poller, a
// blocking one by its thread.
func New(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{file: f, raw: raw}, nil
}

// Pair makes two connected sockets: ours, non-blocking, and a blocking one for a child.
func Pair() (*Conn, *os.File, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, nil, err
	}
	c, err := New(p[0])
	if err != nil {
		unix.Close(p[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(p[1]), "socket"), nil
}

// File is the socket, for deadlines.
func (c *Conn) File() *os.File { return c.file }

// Close ends the connection; a Recv that waits returns.
func (c *Conn) Close() error { return c.file.Close() }

// Peer tells who connected: process and user.
func (c *Conn) Peer() (pid, uid int, err error) {
	var cred *unix.Ucred
	ctl := c.raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(ctl, err); err != nil {
		return 0, 0, err
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// Send writes one message with fds, which stay the caller's.
func (c *Conn) Send(v any, fds ...int) error {
	if len(fds) > MaxFDs {
		return ErrTooManyFDs
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return ErrTooLong
	}
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	msg = append(msg, body...)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(msg, fds)
}

func (c *Conn) write(msg []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(msg) > 0 {
		var n int
		var err error
		waited := c.raw.Write(func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), msg, oob, nil, unix.MSG_NOSIGNAL)
			return err != unix.EAGAIN
		})
		switch {
		case waited != nil:
			return waited
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		}
		msg, oob = msg[n:], nil
	}
	return nil
}

// Recv reads one message into v and returns the descriptors that came with it, now the caller's.
// A peer that closed between messages is io.EOF.
func (c *Conn) Recv(v any) (fds []int, err error) {
	defer func() {
		if err != nil {
			CloseFDs(fds)
			fds = nil
		}
	}()
	var head [4]byte
	if fds, err = c.read(head[:], fds); err != nil {
		return fds, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return fds, ErrTooLong
	}
	body := make([]byte, n)
	if fds, err = c.read(body, fds); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fds, err
	}
	return fds, json.Unmarshal(body, v)
}

func (c *Conn) read(p []byte, fds []int) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(4*(MaxFDs+3)))
	for got := 0; got < len(p); {
		var n, oobn int
		var err error
		waited := c.raw.Read(func(fd uintptr) bool {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), p[got:], oob, unix.MSG_CMSG_CLOEXEC)
			return err != unix.EAGAIN
		})
		switch {
		case waited != nil:
			return fds, waited
		case err == unix.EINTR:
			continue
		case err != nil:
			return fds, err
		case n == 0 && got == 0:
			return fds, io.EOF
		case n == 0:
			return fds, io.ErrUnexpectedEOF
		}
		got += n
		if oobn > 0 {
			more, err := rights(oob[:oobn])
			if err != nil {
				return fds, err
			}
			fds = append(fds, more...)
		}
	}
	return fds, nil
}

func rights(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		more, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			CloseFDs(fds)
			return nil, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

// CloseFDs closes raw descriptors that nobody took.
func CloseFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

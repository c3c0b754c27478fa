package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Small messages are read into a buffer that is held only while there is something to read, so an
// idle connection costs no buffer and no pipe; a stream that keeps filling it is spliced.
const (
	bufferSize  = 32 << 10
	spliceAfter = 4       // full buffers in a row
	spliceBytes = 8 << 20 // at a time
)

type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// join copies between two connections until both directions have ended, each on its own: one side
// may finish sending and go on receiving. A broken direction breaks both.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	var broken [2]error
	wg.Go(func() { broken[0] = forward(a, b) })
	broken[1] = forward(b, a)
	wg.Wait()
	if errors.Join(broken[:]...) != nil {
		reset(a)
		reset(b)
		return
	}
	_ = a.Close()
	_ = b.Close()
}

// forward copies from src to dst and passes the end on.
func forward(dst, src net.Conn) error {
	err := pump(dst, src)
	if err != nil {
		// Wake the other direction, which may wait for a side that will never speak again.
		reset(dst)
		reset(src)
		return err
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		return ignoreGone(half.CloseWrite())
	}
	return dst.Close()
}

// ignoreGone drops the error of ending what the other side has ended already.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	return err
}

// pump copies until src ends.
func pump(dst, src net.Conn) error {
	from, ok := src.(syscall.Conn)
	if !ok {
		_, err := io.Copy(dst, src)
		return err
	}
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	full := 0
	for {
		n, err := relayOnce(dst, raw)
		if err != nil || n == 0 {
			return err
		}
		if n < bufferSize {
			full = 0
		} else if full++; full >= spliceAfter {
			full = 0
			if n, err := io.CopyN(dst, src, spliceBytes); err != nil {
				if errors.Is(err, io.EOF) && n < spliceBytes {
					return nil
				}
				return err
			}
		}
	}
}

// relayOnce waits for something to read and passes it on; 0 means the end.
func relayOnce(dst io.Writer, raw syscall.RawConn) (int, error) {
	var b *buffer
	var n int
	var result error
	err := raw.Read(func(fd uintptr) bool {
		b, _ = buffers.Get().(*buffer)
		for {
			n, result = unix.Read(int(fd), b[:])
			if !errors.Is(result, unix.EINTR) {
				break
			}
		}
		if errors.Is(result, unix.EAGAIN) {
			buffers.Put(b)
			return false
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	defer buffers.Put(b)
	if result != nil || n == 0 {
		return 0, result
	}
	_, err = dst.Write(b[:n])
	return n, err
}

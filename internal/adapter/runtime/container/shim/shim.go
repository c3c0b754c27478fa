// Package shim holds the small program of cmd/shim, compiled and compressed, and makes it runnable.
//
// The bytes are committed so that ebb builds without a second step; build makes them anew and a
// test compares.
package shim

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxBytes bounds the unpacked program.
const maxBytes = 16 << 20

// Open returns a descriptor of the program in sealed memory: no container can change what it came
// from, and no path leads to it. Run it as /proc/self/fd/N of the caller.
func Open() (*os.File, error) {
	packed, err := gzip.NewReader(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("unpacking the pod program: %w", err)
	}
	fd, err := unix.MemfdCreate("ebb-pod", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("making memory for the pod program: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ebb-pod")
	if _, err := io.Copy(f, io.LimitReader(packed, maxBytes)); err != nil {
		f.Close()
		return nil, fmt.Errorf("unpacking the pod program: %w", err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("sealing the pod program: %w", err)
	}
	return f, nil
}

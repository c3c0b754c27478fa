package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nsfsMagic is what statfs says of a namespace's file.
const nsfsMagic = 0x6e736673

// A Space is a network namespace held open by a descriptor.
type Space struct{ file *os.File }

// Make creates a namespace, runs setup on a thread inside it and mounts it on path, so that it
// stays until Unmake. A file already at path is replaced.
func Make(path string, setup func() error) (*Space, error) {
	if err := Unmake(path); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, fmt.Errorf("making network namespace: %w", err)
	}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unsharing the network: %w", err)
		}
		if setup != nil {
			if err := setup(); err != nil {
				return err
			}
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting it on %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making network namespace: %w", err), Unmake(path))
	}
	return openSpace(path)
}

// Unmake unmounts a namespace and deletes its file; the kernel deletes the namespace once no
// process and no socket is left in it. It is safe to repeat.
func Unmake(path string) error {
	for isMounted(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting file of network namespace: %w", err)
	}
	return nil
}

// isMounted tells whether path is a namespace and not just the file under it.
func isMounted(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

// OpenSpace opens the namespace mounted on path.
func OpenSpace(path string) (*Space, error) {
	if !isMounted(path) {
		return nil, fmt.Errorf("opening network namespace %s: %w", path, os.ErrNotExist)
	}
	return openSpace(path)
}

func openSpace(path string) (*Space, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace: %w", err)
	}
	return &Space{file: f}, nil
}

// FD is the namespace's descriptor.
func (s *Space) FD() int { return int(s.file.Fd()) }

// Close lets go of the namespace.
func (s *Space) Close() error { return s.file.Close() }

// Do runs fn on a thread that is inside the namespace.
func (s *Space) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(s.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering network namespace: %w", err)
		}
		return fn()
	})
}

// handle opens a netlink socket inside the namespace.
func (s *Space) handle() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(s.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	return h, nil
}

// onThread runs fn on a locked thread and afterwards puts the thread back into the namespace it
// came from. A thread that cannot go back stays locked, so that the runtime ends it with its
// goroutine instead of giving it to another.
func onThread(fn func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening the thread's network namespace: %w", err)
	}
	defer func() { _ = unix.Close(home) }()
	result := fn()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		return errors.Join(result, fmt.Errorf("leaving network namespace: %w", err))
	}
	runtime.UnlockOSThread()
	return result
}

// setSysctl writes a key under /proc/sys/net of the calling thread's namespace.
func setSysctl(key, value string) error {
	if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
		return fmt.Errorf("setting net/%s: %w", key, err)
	}
	return nil
}

package stage

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// nobody is the user that holds a shared process namespace.
const nobody = 65534

// Pause is process 1 of a process namespace that several containers share: it reaps what they
// leave behind and ends with the pod. It sits in an empty root without any rights.
func Pause(ready int) int {
	if err := confine(); err != nil {
		fmt.Fprintln(os.Stderr, "pause:", err)
		return 125
	}
	reapForever(func() { unix.Close(ready) })
	return 0
}

// Idle is process 1 of a pod's own kernel, which confines it.
func Idle() int {
	reapForever(func() {})
	return 0
}

// reapForever collects the ends of orphans and calls ready once it listens for them.
func reapForever(ready func()) {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	ready()
	for range children {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}

func confine() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separating mounts: %w", err)
	}
	root, err := newFS("tmpfs", []wire.Option{{Key: "size", Value: "0"}}, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, ".", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting an empty root: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the node's root: %w", err)
	}
	s := stager{}
	return s.restrict(wire.Process{UID: nobody, GID: nobody, NoNewPrivs: true})
}

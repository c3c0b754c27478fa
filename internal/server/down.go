package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/config"
)

// killAfter is how long Down waits for an orderly end; longer than stopPatience.
const killAfter = stopPatience + 15*time.Second

// Down stops the ebb on a data folder and removes what a killed one left; it tells whether one ran.
func Down(ctx context.Context, folder config.Folder) (was bool, err error) {
	if _, err := os.Stat(string(folder)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	pid, err := holder(folder)
	if err != nil {
		return false, err
	}
	if pid != 0 {
		if err := end(ctx, pid); err != nil {
			return true, fmt.Errorf("stopping process %d: %w", pid, err)
		}
	}
	held, err := lock(folder)
	if err != nil {
		return pid != 0, err
	}
	defer func() { _ = held.Close() }()
	return pid != 0, sweep(ctx, folder)
}

// end asks a process to stop and waits for it; one that does not is killed, and swept up after.
func end(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("sending %s: %w", signal, err)
		}
		gone, err := awaitPidfd(ctx, fd, killAfter)
		if err != nil || gone {
			return err
		}
	}
	return errors.New("it survived SIGKILL")
}

// awaitPidfd waits until the process ended; false after the timeout.
func awaitPidfd(ctx context.Context, fd int, timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for time.Now().Before(deadline) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 250)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("waiting for process: %w", err)
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
}

// Reset stops the ebb on a data folder and deletes the folder.
func Reset(ctx context.Context, folder config.Folder) error {
	if _, err := os.Stat(string(folder)); err == nil && !ours(folder) {
		return fmt.Errorf("resetting %s: it does not look like a data folder of ebb (no %s in it); delete it by hand if you are sure", folder, folder.Identity())
	}
	if _, err := Down(ctx, folder); err != nil {
		return err
	}
	if err := os.RemoveAll(string(folder)); err != nil {
		return fmt.Errorf("deleting data folder: %w", err)
	}
	return nil
}

func ours(folder config.Folder) bool {
	_, err := os.Stat(folder.Identity())
	return err == nil
}

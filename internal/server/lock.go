package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/config"
)

// ErrRunning means another process holds the data folder.
var ErrRunning = errors.New("ebb is already running")

// lock takes the data folder for this process until the file is closed or the process ends.
func lock(folder config.Folder) (*os.File, error) {
	file, err := os.OpenFile(folder.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := holder(folder)
			return nil, fmt.Errorf("%w on %s (process %d): stop it with `ebb down --data %s`, or start a second one with another --data, --http and --api", ErrRunning, folder, pid, folder)
		}
		return nil, fmt.Errorf("locking %s: %w", folder.Lock(), err)
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing lock: %w", err), file.Close())
	}
	return file, nil
}

// holder tells the process that holds the folder's lock, 0 for none.
func holder(folder config.Folder) (int, error) {
	file, err := os.Open(folder.Lock())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("opening lock: %w", err)
	}
	defer func() { _ = file.Close() }()
	switch err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case err == nil:
		return 0, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		return 0, fmt.Errorf("testing lock: %w", err)
	}
	data := make([]byte, 32)
	n, _ := file.ReadAt(data, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:n])))
	if err != nil {
		return 0, fmt.Errorf("reading lock %s: %w", folder.Lock(), err)
	}
	return pid, nil
}

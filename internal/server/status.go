package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/config"
)

// State is how far a running ebb has come. Stopped is also what a folder without one reports.
//
//	Stopped ─► Starting ─► Ready ─► Stopping ─► Stopped
type State string

// The states a Status can be in.
const (
	StateStopped  State = "stopped"
	StateStarting State = "starting"
	StateReady    State = "ready"
	StateStopping State = "stopping"
)

// Status is what a running ebb says about itself in its data folder.
type Status struct {
	Data       string        `json:"data"`
	State      State         `json:"state"`
	Step       string        `json:"step,omitempty"` // what Starting is at
	PID        int           `json:"pid,omitempty"`
	Started    time.Time     `json:"started,omitzero"`
	Took       time.Duration `json:"took,omitempty"` // from start to Ready
	HTTP       []string      `json:"http,omitempty"` // gateway addresses on this machine, as URLs
	HTTPS      []string      `json:"https,omitempty"`
	Trust      string        `json:"trust,omitempty"` // the file with the authority of https certificates
	API        string        `json:"api,omitempty"`
	Registry   string        `json:"registry,omitempty"` // host:port to push to
	Kubeconfig string        `json:"kubeconfig,omitempty"`
	// Limits are what this machine does not allow, one sentence each.
	Limits []string `json:"limits,omitempty"`
}

// ReadStatus tells the state of the ebb on a data folder. A file left by a killed process counts as
// stopped: only the lock proves life.
func ReadStatus(folder config.Folder) (Status, error) {
	stopped := Status{Data: string(folder), State: StateStopped}
	pid, err := holder(folder)
	if err != nil {
		return stopped, err
	}
	if pid == 0 {
		return stopped, nil
	}
	data, err := os.ReadFile(folder.Status())
	if errors.Is(err, fs.ErrNotExist) {
		return Status{Data: string(folder), State: StateStarting, PID: pid}, nil
	}
	if err != nil {
		return stopped, fmt.Errorf("reading status: %w", err)
	}
	var s Status
	if err := json.Unmarshal(data, &s); err != nil {
		return stopped, fmt.Errorf("reading status %s: %w", folder.Status(), err)
	}
	if s.PID != pid {
		return Status{Data: string(folder), State: StateStarting, PID: pid}, nil
	}
	return s, nil
}

// ErrRunning means another process holds the data folder.
var ErrRunning = errors.New("ebb is already running")

// lock takes the data folder for this process until the file is closed or the process ends.
func lock(folder config.Folder) (*os.File, error) {
	file, err := os.OpenFile(folder.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	whole := wholeFile()
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &whole); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			pid, _ := holder(folder)
			return nil, runningError(folder, pid)
		}
		return nil, fmt.Errorf("locking %s: %w", folder.Lock(), err)
	}
	// One write of one length: a reader never sees parts of two.
	if _, err := file.WriteAt(fmt.Appendf(nil, "%-10d\n", os.Getpid()), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("writing lock: %w", err), file.Close())
	}
	return file, nil
}

// wholeFile is a lock on all of a file. Unlike flock's it can be asked for without being taken, so
// that looking never keeps somebody from starting.
func wholeFile() unix.Flock_t { return unix.Flock_t{Type: unix.F_WRLCK} }

func runningError(folder config.Folder, pid int) error {
	return fmt.Errorf("%w on %s (process %d): stop it with `ebb down --data %s`, or start a second one with another --data, --http and --api", ErrRunning, folder, pid, folder)
}

// holder tells the process that holds the folder's lock, 0 for none.
func holder(folder config.Folder) (int, error) {
	file, err := os.Open(folder.Lock())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return 0, fmt.Errorf("opening lock: %w; the folder belongs to another user: try `sudo ebb …`", err)
	}
	if err != nil {
		return 0, fmt.Errorf("opening lock: %w", err)
	}
	defer func() { _ = file.Close() }()
	found := wholeFile()
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &found); err != nil {
		return 0, fmt.Errorf("testing lock: %w", err)
	}
	if found.Type == unix.F_UNLCK {
		return 0, nil
	}
	data := make([]byte, 32)
	n, _ := file.ReadAt(data, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:n])))
	if err != nil {
		return 0, fmt.Errorf("reading lock %s: %w", folder.Lock(), err)
	}
	return pid, nil
}

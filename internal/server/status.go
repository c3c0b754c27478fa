package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

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

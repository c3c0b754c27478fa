// Package config says where ebb keeps its state and which names, addresses and ports it took.
//
// A Folder is the layout of a data folder; an Identity is what one installation chose for itself
// once and keeps, so that two installations on one machine never meet.
package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// Folder is a data folder. Its methods name the places in it; nothing else may invent paths there.
type Folder string

// DefaultFolder is where state lives unless the user says otherwise: $XDG_STATE_HOME/ebb, else
// ~/.local/state/ebb, else /var/lib/ebb.
func DefaultFolder() Folder {
	if dir := os.Getenv("EBB_DATA"); dir != "" {
		return Folder(dir)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return Folder(filepath.Join(dir, "ebb"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		return Folder(filepath.Join(home, ".local", "state", "ebb"))
	}
	return "/var/lib/ebb"
}

// Make creates the folder, readable by its owner only, and returns it with an absolute path.
func (f Folder) Make() (Folder, error) {
	abs, err := filepath.Abs(string(f))
	if err != nil {
		return "", fmt.Errorf("resolving data folder %s: %w", f, err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", fmt.Errorf("making data folder: %w", err)
	}
	if err := os.Chmod(abs, 0o700); err != nil {
		return "", fmt.Errorf("protecting data folder: %w", err)
	}
	return Folder(abs), nil
}

func (f Folder) join(parts ...string) string {
	return filepath.Join(append([]string{string(f)}, parts...)...)
}

// Kubeconfig is the administrator's kubeconfig.
func (f Folder) Kubeconfig() string { return f.join("kubeconfig") }

// Identity is the file that keeps the chosen names, addresses and ports.
func (f Folder) Identity() string { return f.join("identity.json") }

// Lock is held by the running process.
func (f Folder) Lock() string { return f.join("lock") }

// Status is what the running process says about itself: addresses and state.
func (f Folder) Status() string { return f.join("status.json") }

// Log is where a detached process writes its log.
func (f Folder) Log() string { return f.join("ebb.log") }

// PKI holds keys and certificates.
func (f Folder) PKI() string { return f.join("pki") }

// Etcd holds the Kubernetes state.
func (f Folder) Etcd() string { return f.join("etcd") }

// Registry holds the images pushed or loaded here.
func (f Folder) Registry() string { return f.join("registry") }

// Images holds unpacked image layers.
func (f Folder) Images() string { return f.join("images") }

// Runtime holds the state of sandboxes and containers.
func (f Folder) Runtime() string { return f.join("runtime") }

// Node holds pods' volumes, logs and volume folders.
func (f Folder) Node() string { return f.join("node") }

// Network holds the namespace's mount point and address allocations.
func (f Folder) Network() string { return f.join("network") }

// Builds caches what builds can use again.
func (f Folder) Builds() string { return f.join("builds") }

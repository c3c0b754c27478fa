// Package config says where ebb keeps its state and which names, addresses and ports it took.
//
// A Folder is the layout of a data folder; an Identity is what one installation chose for itself
// once and keeps, so that two installations on one machine never meet.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// Resolve returns the folder by an absolute path without symbolic links: the name the kernel's tables
// of mounts and processes know it by. The folder need not exist.
func (f Folder) Resolve() (Folder, error) {
	path, err := filepath.Abs(string(f))
	if err != nil {
		return "", fmt.Errorf("resolving data folder %s: %w", f, err)
	}
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return Folder(filepath.Join(real, rest)), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("resolving data folder %s: %w", f, err)
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
}

// Make creates the folder, readable by its owner only, and returns it resolved. A folder with other
// things in it is refused: it would lose its mode now, and everything in it at a reset.
func (f Folder) Make() (Folder, error) {
	resolved, err := f.Resolve()
	if err != nil {
		return "", err
	}
	if err := resolved.refuseForeign(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(string(resolved), 0o700); err != nil {
		return "", fmt.Errorf("making data folder: %w", err)
	}
	if err := os.Chmod(string(resolved), 0o700); err != nil {
		return "", fmt.Errorf("protecting data folder: %w", err)
	}
	return resolved, nil
}

// refuseForeign fails if the folder holds something but no identity of ours. What a start that went
// no further may have left, and what an empty file system holds, count for nothing.
func (f Folder) refuseForeign() error {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading data folder: %w", err)
	}
	foreign := ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == filepath.Base(f.Identity()):
			return nil
		case name == filepath.Base(f.Lock()), name == filepath.Base(f.Log()), name == "lost+found", strings.HasPrefix(name, temporary):
		default:
			foreign = name
		}
	}
	if foreign != "" {
		return fmt.Errorf("using %s as data folder: it holds other things (%s) and would be closed to other users: name an empty or a new folder", f, foreign)
	}
	return nil
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

// RequestLog is the file of lines about requests, where they are logged.
func (f Folder) RequestLog() string { return f.join("requests.log") }

// Trust is the certificate of the authority that signs for https hosts.
func (f Folder) Trust() string { return f.join("ca.crt") }

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

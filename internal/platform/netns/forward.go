package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forwarding is the host's IP forwarding as several instances share it: the first that needs it
// notes the values it finds, the last one gone puts them back.
type forwarding struct {
	host *Space
	name string // of this instance's veth, which shows that it lives
	file string
}

// forwardingState is what the file in RunDir holds.
type forwardingState struct {
	Boot   string            `json:"boot"`   // values of another boot are void
	Users  []string          `json:"users"`  // veths of instances that need forwarding
	Before map[string]string `json:"before"` // sysctl below net → value found; empty if it was on
}

func newForwarding(host *Space, c Config) *forwarding {
	return &forwarding{host: host, name: c.Name, file: filepath.Join(c.RunDir, "forwarding.json")}
}

// acquire turns forwarding on, remembering what was there.
func (f *forwarding) acquire() error {
	return f.update(func(s *forwardingState) error {
		if len(s.Before) == 0 && !slices.Contains(s.Users, f.name) {
			before, err := forwardingValues()
			if err != nil {
				return err
			}
			s.Before = before
		}
		s.Users = append(slices.DeleteFunc(s.Users, func(u string) bool { return u == f.name }), f.name)
		if value, err := sysctl("ipv4/ip_forward"); err != nil || value == "1" {
			return err
		}
		return setSysctl("ipv4/ip_forward", "1")
	})
}

// release takes this instance off the list and restores the values when nobody is left on it.
func (f *forwarding) release() error {
	if _, err := os.Stat(f.file); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return f.update(func(s *forwardingState) error {
		s.Users = slices.DeleteFunc(s.Users, func(u string) bool { return u == f.name || !f.lives(u) })
		if len(s.Users) > 0 {
			return nil
		}
		err := restoreForwarding(s.Before)
		s.Before = nil
		return err
	})
}

// lives tells whether the instance with that veth still exists.
func (f *forwarding) lives(link string) bool {
	h, err := f.host.handle()
	if err != nil {
		return true // rather keep forwarding than break a neighbour
	}
	defer h.Close()
	_, err = h.LinkByName(link)
	_, missing := errors.AsType[netlink.LinkNotFoundError](err)
	return !missing
}

// update runs change on the state under a lock that holds between processes, in the host's namespace.
func (f *forwarding) update(change func(*forwardingState) error) error {
	if err := os.MkdirAll(filepath.Dir(f.file), 0o700); err != nil {
		return fmt.Errorf("making folder for shared host state: %w", err)
	}
	file, err := lockFile(f.file)
	if err != nil {
		return fmt.Errorf("locking shared host state: %w", err)
	}
	defer func() { _ = file.Close() }()
	var state forwardingState
	_ = json.NewDecoder(file).Decode(&state) // an empty or torn file counts as no state
	if boot := BootID(); state.Boot != boot {
		state = forwardingState{Boot: boot}
	}
	changed := f.host.Do(func() error { return change(&state) })
	if len(state.Users) == 0 {
		return errors.Join(changed, os.Remove(f.file))
	}
	data, err := json.Marshal(state)
	if err != nil {
		return errors.Join(changed, err)
	}
	if err := errors.Join(file.Truncate(0), writeAt(file, data)); err != nil {
		return errors.Join(changed, fmt.Errorf("writing shared host state: %w", err))
	}
	return changed
}

// lockFile opens path with an exclusive lock. Whoever leaves last deletes the file, so a lock got
// on a deleted one is worth nothing and is tried again.
func lockFile(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		held, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(held, there) {
			return file, nil
		}
		_ = file.Close()
	}
}

func writeAt(file *os.File, data []byte) error {
	_, err := file.WriteAt(data, 0)
	return err
}

// forwardingValues reads what turning forwarding on would change: besides the switch itself every
// interface's own switch and the acceptance of redirects. It is empty where forwarding is on.
func forwardingValues() (map[string]string, error) {
	on, err := sysctl("ipv4/ip_forward")
	if err != nil || on == "1" {
		return nil, err
	}
	keys, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/forwarding")
	if err != nil {
		return nil, err
	}
	values := map[string]string{"ipv4/ip_forward": on}
	for _, path := range append(keys, "/proc/sys/net/ipv4/conf/all/accept_redirects") {
		key := strings.TrimPrefix(path, "/proc/sys/net/")
		if values[key], err = sysctl(key); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// restoreForwarding writes values back: the main switch first, since it changes the others.
func restoreForwarding(values map[string]string) error {
	const first = "ipv4/ip_forward"
	var errs []error
	if value, ok := values[first]; ok {
		errs = append(errs, setSysctl(first, value))
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		now, err := sysctl(key)
		if errors.Is(err, os.ErrNotExist) || now == values[key] {
			continue // the interface is gone, or nothing to do
		}
		errs = append(errs, setSysctl(key, values[key]))
	}
	return errors.Join(errs...)
}

// sysctl reads a key under /proc/sys/net of the calling thread's namespace.
func sysctl(key string) (string, error) {
	data, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil {
		return "", fmt.Errorf("reading net/%s: %w", key, err)
	}
	return strings.TrimSpace(string(data)), nil
}

// BootID names the present boot of the machine; state that does not survive one is tagged with it.
func BootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// AllowDevices sets which devices the processes of a path may use. Rules apply in order; the path
// has no children yet.
func (t *Tree) AllowDevices(path string, rules []specs.LinuxDeviceCgroup) error {
	if t.Unified {
		return attachDeviceFilter(t.Folder(path), rules)
	}
	mount := t.v1("devices")
	if mount == "" {
		return nil
	}
	for _, r := range rules {
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		if err := write(mount+"/"+path, file, deviceRule(r)); err != nil {
			return fmt.Errorf("allowing devices to %s: %w", path, err)
		}
	}
	return nil
}

// deviceRule writes a rule as version 1 reads it.
func deviceRule(r specs.LinuxDeviceCgroup) string {
	kind := r.Type
	if kind == "" || kind == "a" {
		return "a"
	}
	return kind + " " + number(r.Major) + ":" + number(r.Minor) + " " + r.Access
}

func number(n *int64) string {
	if n == nil || *n < 0 {
		return "*"
	}
	return strconv.FormatInt(*n, 10)
}

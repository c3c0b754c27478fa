package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is one measurement.
type Usage struct {
	CPUNanos   uint64 // since the path was made
	Memory     uint64 // as the kernel accounts it
	WorkingSet uint64 // less file pages nobody used lately
	RSS        uint64
	Processes  uint64
	OOMKills   uint64
}

// Measure reads what a path uses now. What the node has no controller for stays zero.
func (t *Tree) Measure(path string) (Usage, error) {
	if t.Unified {
		return t.measureUnified(path)
	}
	var u Usage
	var err error
	dir := func(controller string) string { return filepath.Join(t.v1(controller), path) }
	if t.v1("cpuacct") != "" {
		if u.CPUNanos, err = readUint(dir("cpuacct"), "cpuacct.usage"); err != nil {
			return u, fmt.Errorf("reading CPU use: %w", err)
		}
	}
	if t.v1("memory") != "" {
		if u.Memory, err = readUint(dir("memory"), "memory.usage_in_bytes"); err != nil {
			return u, fmt.Errorf("reading memory use: %w", err)
		}
		stat, err := readTable(dir("memory"), "memory.stat")
		if err != nil {
			return u, err
		}
		u.RSS = stat["total_rss"]
		u.WorkingSet = less(u.Memory, stat["total_inactive_file"])
		oom, err := readTable(dir("memory"), "memory.oom_control")
		if err != nil {
			return u, err
		}
		u.OOMKills = oom["oom_kill"]
	}
	if t.v1("pids") != "" {
		if u.Processes, err = readUint(dir("pids"), "pids.current"); err != nil {
			return u, fmt.Errorf("counting processes: %w", err)
		}
	}
	return u, nil
}

func (t *Tree) measureUnified(path string) (Usage, error) {
	var u Usage
	dir := t.Folder(path)
	cpu, err := readTable(dir, "cpu.stat")
	if err != nil {
		return u, err
	}
	u.CPUNanos = cpu["usage_usec"] * 1000
	if stat, err := readTable(dir, "memory.stat"); err == nil { // absent without the controller
		if u.Memory, err = readUint(dir, "memory.current"); err != nil {
			return u, fmt.Errorf("reading memory use: %w", err)
		}
		u.RSS = stat["anon"]
		u.WorkingSet = less(u.Memory, stat["inactive_file"])
		if events, err := readTable(dir, "memory.events"); err == nil {
			u.OOMKills = events["oom_kill"]
		}
	}
	if n, err := readUint(dir, "pids.current"); err == nil {
		u.Processes = n
	}
	return u, nil
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// readTable reads a file of lines "name value".
func readTable(dir, name string) (map[string]uint64, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	table := map[string]uint64{}
	for line := range strings.SplitSeq(string(data), "\n") {
		key, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			table[key] = n
		}
	}
	return table, nil
}

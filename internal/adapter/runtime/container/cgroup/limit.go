package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// Bounds of the CPU weights of both versions.
const (
	minShares, maxShares = 2, 262144
	defaultShares        = 1024
	defaultPeriodUS      = 100_000
)

// setting is one file to write.
type setting struct {
	controller, file, value string
	optional                bool // kernels without it (swap accounting) do well without
}

// Limit writes limits to a path that is there; zero values are unlimited. A controller the node
// does not have is skipped, see Missing.
func (t *Tree) Limit(path string, r runtime.Resources) error {
	settings := v1Settings(r)
	if t.Unified {
		settings = v2Settings(r)
	}
	for _, s := range settings {
		dir := t.Folder(path)
		if !t.Unified {
			mount := t.v1(s.controller)
			if mount == "" {
				continue
			}
			dir = mount + "/" + path
		}
		err := write(dir, s.file, s.value)
		if err != nil && !(s.optional || t.Unified) || err != nil && !errors.Is(err, fs.ErrNotExist) && !s.optional {
			return fmt.Errorf("limiting %s: %w", path, err)
		}
	}
	return nil
}

func v1Settings(r runtime.Resources) []setting {
	shares, period := cmpOr(r.CPUShares, defaultShares), cmpOr(r.CPUPeriodUS, defaultPeriodUS)
	quota, memory, pids := "-1", "-1", "max"
	if r.CPUQuotaUS > 0 {
		quota = strconv.FormatInt(r.CPUQuotaUS, 10)
	}
	if r.MemoryBytes > 0 {
		memory = strconv.FormatInt(r.MemoryBytes, 10)
	}
	if r.PIDs > 0 {
		pids = strconv.FormatInt(r.PIDs, 10)
	}
	return []setting{
		{"cpu", "cpu.shares", strconv.FormatUint(min(max(shares, minShares), maxShares), 10), false},
		{"cpu", "cpu.cfs_period_us", strconv.FormatUint(period, 10), false},
		{"cpu", "cpu.cfs_quota_us", quota, false},
		{"memory", "memory.limit_in_bytes", memory, false},
		{"memory", "memory.memsw.limit_in_bytes", memory, true},
		{"pids", "pids.max", pids, false},
	}
}

func v2Settings(r runtime.Resources) []setting {
	shares, period := cmpOr(r.CPUShares, defaultShares), cmpOr(r.CPUPeriodUS, defaultPeriodUS)
	quota, memory, swap, pids := "max", "max", "max", "max"
	if r.CPUQuotaUS > 0 {
		quota = strconv.FormatInt(r.CPUQuotaUS, 10)
	}
	if r.MemoryBytes > 0 {
		memory, swap = strconv.FormatInt(r.MemoryBytes, 10), "0"
	}
	if r.PIDs > 0 {
		pids = strconv.FormatInt(r.PIDs, 10)
	}
	return []setting{
		{"cpu", "cpu.weight", strconv.FormatUint(Weight(shares), 10), false},
		{"cpu", "cpu.max", quota + " " + strconv.FormatUint(period, 10), false},
		{"memory", "memory.max", memory, false},
		{"memory", "memory.swap.max", swap, true},
		{"pids", "pids.max", pids, false},
	}
}

// Weight converts version 1 shares (2 to 262144) to a version 2 weight (1 to 10000), linearly as
// OCI runtimes do.
func Weight(shares uint64) uint64 {
	shares = min(max(shares, minShares), maxShares)
	return 1 + (shares-minShares)*9999/(maxShares-minShares)
}

func cmpOr(value, otherwise uint64) uint64 {
	if value == 0 {
		return otherwise
	}
	return value
}

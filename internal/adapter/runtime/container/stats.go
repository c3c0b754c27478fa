package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// Stats implements runtime.Runtime.
func (r *Runtime) Stats(ctx context.Context, sandboxID string) (runtime.SandboxStats, error) {
	s, err := r.sandbox(sandboxID)
	if err != nil {
		return runtime.SandboxStats{}, err
	}
	stats := runtime.SandboxStats{Time: time.Now(), Containers: map[string]runtime.ContainerStats{}}
	for _, rec := range s.running() {
		one, err := r.measure(ctx, s, rec)
		if err != nil {
			return stats, fmt.Errorf("measuring container %s: %w", rec.Name, err)
		}
		stats.Containers[rec.Name] = one
	}
	stats.Network, err = r.networkStats(s)
	if err != nil {
		return stats, fmt.Errorf("measuring the network of sandbox %s: %w", sandboxID, err)
	}
	return stats, nil
}

// running lists the records of containers that run.
func (s *sandbox) running() []wire.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []wire.Container
	for _, e := range s.containers {
		if e.rec.PID > 0 && e.rec.Finished.IsZero() {
			list = append(list, e.rec)
		}
	}
	return list
}

func (r *Runtime) measure(ctx context.Context, s *sandbox, rec wire.Container) (runtime.ContainerStats, error) {
	out := runtime.ContainerStats{Started: rec.Started}
	switch {
	case rec.OCI != nil && rec.OCI.Kernel != nil:
		if err := s.measureKernel(ctx, rec, &out); err != nil {
			return out, err
		}
	case r.groups != nil:
		u, err := r.groups.Measure(rec.Cgroup)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return out, err
		}
		out.CPUNanos, out.MemoryBytes, out.WorkingSet, out.RSSBytes = u.CPUNanos, u.Memory, u.WorkingSet, u.RSS
		out.ProcessCount, out.OOMKillEvents = u.Processes, u.OOMKills
	}
	size, err := diskUse(ctx, s.file(rec.Dir, "upper"))
	out.RootFSBytes = size
	return out, err
}

// diskUse adds up what files below a folder take on disk. Hard links count once for each name.
func diskUse(ctx context.Context, dir string) (uint64, error) {
	var total uint64
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			total += uint64(st.Blocks) * 512
		}
		return ctx.Err()
	})
	return total, err
}

// networkStats reads the pod's interface; with the node's network there is none of its own.
func (r *Runtime) networkStats(s *sandbox) (runtime.NetworkStats, error) {
	if s.Network != nil {
		return r.cfg.Pods.Stats(s.Network)
	}
	if s.spec.HostNetwork {
		return runtime.NetworkStats{}, nil
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(s.Guard.PID) + "/net/dev")
	if errors.Is(err, fs.ErrNotExist) {
		return runtime.NetworkStats{}, nil
	}
	if err != nil {
		return runtime.NetworkStats{}, err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) != "lo" || len(f) < 12 {
			continue
		}
		number := func(i int) uint64 {
			n, err := strconv.ParseUint(f[i], 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
		return runtime.NetworkStats{RxBytes: number(0), RxErrors: number(2), TxBytes: number(8), TxErrors: number(10)}, nil
	}
	return runtime.NetworkStats{}, nil
}

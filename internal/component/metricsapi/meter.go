package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

const (
	// window is what a rate is taken over when requests come often enough.
	window = 10 * time.Second
	// stale is when a reading is too old to say anything about now.
	stale = 90 * time.Second
	// shortWindow is what a rate is taken over when nobody asked for long.
	shortWindow = 500 * time.Millisecond
	// fresh is how long a reading answers further requests.
	fresh = time.Second
)

// Usage is what something used: CPU as an average over Window before Time, memory at Time.
type Usage struct {
	Time         time.Time
	Window       time.Duration
	CPUNanoCores uint64
	MemoryBytes  uint64
}

// PodUsage is the use of a pod's containers, by name.
type PodUsage map[string]Usage

// Report is what all sources' nodes and pods used.
type Report struct {
	Nodes map[string]Usage
	Pods  map[types.UID]PodUsage
}

// Meter turns counters into rates. It keeps a few readings of the last requests and nothing else.
type Meter struct {
	sources []Source
	log     *slog.Logger

	mu       sync.Mutex // held while reading, so that requests at once share a reading
	readings []reading  // oldest first
	report   Report     // of the newest reading
}

// NewMeter reads from sources when asked.
func NewMeter(sources []Source, log *slog.Logger) *Meter {
	return &Meter{sources: sources, log: log}
}

type reading struct {
	taken  time.Time
	points map[target]point
}

// target is a node, or a container of a pod.
type target struct {
	node      string
	pod       types.UID
	container string
}

type point struct {
	time    time.Time
	started time.Time
	cpu     uint64 // nanoseconds since started
	memory  uint64
}

// Report tells the use now. Without recent readings it takes shortWindow.
func (m *Meter) Report(ctx context.Context) (Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(time.Now())
	if n := len(m.readings); n > 0 && m.report.Nodes != nil && time.Since(m.readings[n-1].taken) < fresh {
		return m.report, nil
	}
	if len(m.readings) == 0 {
		if err := m.read(ctx); err != nil {
			return Report{}, err
		}
		t := time.NewTimer(shortWindow)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return Report{}, context.Cause(ctx)
		}
	}
	if err := m.read(ctx); err != nil {
		return Report{}, err
	}
	m.report = rates(m.readings)
	return m.report, nil
}

// forget drops readings that are too old, and those that a later one replaces as the window's start.
func (m *Meter) forget(now time.Time) {
	for len(m.readings) > 0 && now.Sub(m.readings[0].taken) > stale {
		m.readings = m.readings[1:]
	}
	for len(m.readings) > 1 && now.Sub(m.readings[1].taken) >= window {
		m.readings = m.readings[1:]
	}
}

// read takes a reading of all sources; it fails only if all of them do.
func (m *Meter) read(ctx context.Context) error {
	r := reading{points: map[target]point{}}
	var failed error
	for _, s := range m.sources {
		summary, err := s.Summary(ctx)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		r.add(summary)
	}
	if failed != nil && len(r.points) == 0 {
		return fmt.Errorf("reading usage: %w", failed)
	}
	if failed != nil {
		m.log.Warn("reading usage of some nodes", "error", failed)
	}
	r.taken = time.Now()
	m.readings = append(m.readings, r)
	return nil
}

func (r reading) add(s *stats.Summary) {
	r.put(target{node: s.Node.NodeName}, s.Node.StartTime.Time, s.Node.CPU, s.Node.Memory)
	for i := range s.Pods {
		p := &s.Pods[i]
		for j := range p.Containers {
			c := &p.Containers[j]
			r.put(target{pod: types.UID(p.PodRef.UID), container: c.Name}, c.StartTime.Time, c.CPU, c.Memory)
		}
	}
}

// put keeps a target whose figures are complete.
func (r reading) put(t target, started time.Time, cpu *stats.CPUStats, memory *stats.MemoryStats) {
	if cpu == nil || cpu.UsageCoreNanoSeconds == nil || memory == nil || memory.WorkingSetBytes == nil {
		return
	}
	r.points[t] = point{time: cpu.Time.Time, started: started, cpu: *cpu.UsageCoreNanoSeconds, memory: *memory.WorkingSetBytes}
}

// rates compares the newest reading with the oldest one that knows the same run of each target.
func rates(readings []reading) Report {
	out := Report{Nodes: map[string]Usage{}, Pods: map[types.UID]PodUsage{}}
	newest := readings[len(readings)-1]
	for t, now := range newest.points {
		u, ok := rate(now, earliest(readings, t, now))
		if !ok {
			continue
		}
		if t.node != "" {
			out.Nodes[t.node] = u
			continue
		}
		if out.Pods[t.pod] == nil {
			out.Pods[t.pod] = PodUsage{}
		}
		out.Pods[t.pod][t.container] = u
	}
	return out
}

// earliest finds where the window starts; for what is younger than it, that is its own start.
func earliest(readings []reading, t target, now point) point {
	for _, r := range readings {
		if p, ok := r.points[t]; ok && p.started.Equal(now.started) && p.cpu <= now.cpu && p.time.Before(now.time) {
			return p
		}
	}
	return point{time: now.started}
}

func rate(now, then point) (Usage, bool) {
	span := now.time.Sub(then.time)
	if then.time.IsZero() || span <= 0 {
		return Usage{}, false
	}
	cores := float64(now.cpu-then.cpu) / float64(span)
	return Usage{Time: now.time, Window: span, CPUNanoCores: uint64(cores * 1e9), MemoryBytes: now.memory}, true
}

// Package stats measures a node and its pods and shows the figures in the forms a kubelet has:
// the stats summary and the resource metrics.
package stats

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	v1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// Pod is one pod to measure.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Started         time.Time
}

// Source is what is measured.
type Source interface {
	// Running are the pods that have a sandbox.
	Running() []Pod
	// Measure reads one pod's counters.
	Measure(ctx context.Context, uid types.UID) (runtime.SandboxStats, error)
}

// Collector measures when asked and never by itself.
type Collector struct {
	Node    string
	DataDir string // whose file system is the node's
	Source  Source

	mu   sync.Mutex // guards last
	last map[string]sample
}

// sample is a CPU counter at a time, from which the next measurement has a rate.
type sample struct {
	at    time.Time
	nanos uint64
}

// side is how many pods are measured at the same time.
const side = 8

// Summary measures everything now.
func (c *Collector) Summary(ctx context.Context) (*v1alpha1.Summary, error) {
	node, err := c.node()
	if err != nil {
		return nil, err
	}
	pods := c.Source.Running()
	out := make([]*v1alpha1.PodStats, len(pods))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(side)
	for i, p := range pods {
		g.Go(func() error {
			m, err := c.Source.Measure(ctx, p.UID)
			if errors.Is(err, runtime.ErrNotFound) {
				return nil // it went meanwhile
			}
			if err != nil {
				return fmt.Errorf("measuring pod %s/%s: %w", p.Namespace, p.Name, err)
			}
			out[i] = podStats(p, m)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	s := &v1alpha1.Summary{Node: *node}
	for _, p := range out {
		if p != nil {
			s.Pods = append(s.Pods, *p)
		}
	}
	c.rates(s)
	return s, nil
}

func podStats(p Pod, m runtime.SandboxStats) *v1alpha1.PodStats {
	now := metav1.NewTime(m.Time)
	s := &v1alpha1.PodStats{
		PodRef: v1alpha1.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)}, StartTime: metav1.NewTime(p.Started),
		Network: &v1alpha1.NetworkStats{Time: now, InterfaceStats: v1alpha1.InterfaceStats{
			Name:    "eth0",
			RxBytes: &m.Network.RxBytes, RxErrors: &m.Network.RxErrors, TxBytes: &m.Network.TxBytes, TxErrors: &m.Network.TxErrors,
		}},
	}
	var cpu, memory, working, rss, disk, processes uint64
	for name, c := range m.Containers {
		s.Containers = append(s.Containers, v1alpha1.ContainerStats{
			Name: name, StartTime: metav1.NewTime(c.Started),
			CPU:    &v1alpha1.CPUStats{Time: now, UsageCoreNanoSeconds: new(c.CPUNanos)},
			Memory: &v1alpha1.MemoryStats{Time: now, UsageBytes: new(c.MemoryBytes), WorkingSetBytes: new(c.WorkingSet), RSSBytes: new(c.RSSBytes)},
			Rootfs: &v1alpha1.FsStats{Time: now, UsedBytes: new(c.RootFSBytes)},
		})
		cpu, memory, working = cpu+c.CPUNanos, memory+c.MemoryBytes, working+c.WorkingSet
		rss, disk, processes = rss+c.RSSBytes, disk+c.RootFSBytes, processes+c.ProcessCount
	}
	s.CPU = &v1alpha1.CPUStats{Time: now, UsageCoreNanoSeconds: &cpu}
	s.Memory = &v1alpha1.MemoryStats{Time: now, UsageBytes: &memory, WorkingSetBytes: &working, RSSBytes: &rss}
	s.EphemeralStorage = &v1alpha1.FsStats{Time: now, UsedBytes: &disk}
	s.ProcessStats = &v1alpha1.ProcessStats{ProcessCount: &processes}
	return s
}

// rates fills in CPU use per second where an earlier measurement allows it.
func (c *Collector) rates(s *v1alpha1.Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[string]sample{}
	rate := func(key string, cpu *v1alpha1.CPUStats) {
		now := sample{cpu.Time.Time, *cpu.UsageCoreNanoSeconds}
		next[key] = now
		zero := uint64(0)
		cpu.UsageNanoCores = &zero
		before, ok := c.last[key]
		if !ok || now.nanos < before.nanos {
			return
		}
		if now.at.Sub(before.at) < time.Second { // too short to tell: keep the older one to measure from
			next[key] = before
		}
		if span := now.at.Sub(before.at).Seconds(); span > 0 {
			cpu.UsageNanoCores = new(uint64(float64(now.nanos-before.nanos) / span))
		}
	}
	rate("", s.Node.CPU)
	for i := range s.Pods {
		p := &s.Pods[i]
		rate(p.PodRef.UID, p.CPU)
		for j := range p.Containers {
			// A restart begins a new counter.
			rate(p.PodRef.UID+"/"+p.Containers[j].Name+"/"+p.Containers[j].StartTime.String(), p.Containers[j].CPU)
		}
	}
	c.last = next
}

// node reads the machine's own figures.
func (c *Collector) node() (*v1alpha1.NodeStats, error) {
	now := metav1.Now()
	cpu, boot, err := machineCPU()
	if err != nil {
		return nil, err
	}
	mem, err := machineMemory()
	if err != nil {
		return nil, err
	}
	mem.Time = now
	n := &v1alpha1.NodeStats{NodeName: c.Node, StartTime: metav1.NewTime(boot), CPU: &v1alpha1.CPUStats{Time: now, UsageCoreNanoSeconds: &cpu}, Memory: mem}
	var disk unix.Statfs_t
	if err := unix.Statfs(c.DataDir, &disk); err == nil {
		size := uint64(disk.Bsize)
		n.Fs = &v1alpha1.FsStats{
			Time: now, AvailableBytes: new(disk.Bavail * size), CapacityBytes: new(disk.Blocks * size),
			UsedBytes: new((disk.Blocks - disk.Bfree) * size), InodesFree: &disk.Ffree, Inodes: &disk.Files, InodesUsed: new(disk.Files - disk.Ffree),
		}
	}
	return n, nil
}

// ticks per second of /proc/stat; the same on every Linux that Go runs on.
const userHZ = 100

// machineCPU is the CPU time all cores have spent working since boot, in nanoseconds. The kernel's
// own boot time is used, which is the same at every reading.
func machineCPU() (nanos uint64, boot time.Time, err error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, boot, fmt.Errorf("measuring the machine's CPU: %w", err)
	}
	for text := range strings.Lines(string(raw)) {
		fields := strings.Fields(text)
		switch {
		case len(fields) >= 9 && fields[0] == "cpu":
			if nanos, err = working(fields[1:9]); err != nil {
				return 0, boot, fmt.Errorf("measuring the machine's CPU: %w", err)
			}
		case len(fields) == 2 && fields[0] == "btime":
			seconds, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, boot, fmt.Errorf("reading the machine's boot time: %w", err)
			}
			boot = time.Unix(seconds, 0)
		}
	}
	if nanos == 0 {
		return 0, boot, errors.New("measuring the machine's CPU: the kernel tells nothing")
	}
	return nanos, boot, nil
}

// working sums user, nice, system, irq, softirq and steal; idle and iowait are left out.
func working(fields []string) (uint64, error) {
	var total uint64
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 {
			total += n
		}
	}
	return total * (1e9 / userHZ), nil
}

func machineMemory() (*v1alpha1.MemoryStats, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("measuring the machine's memory: %w", err)
	}
	defer f.Close()
	values := map[string]uint64{}
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) >= 2 {
			if kib, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
				values[strings.TrimSuffix(fields[0], ":")] = kib << 10
			}
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("measuring the machine's memory: %w", err)
	}
	used := values["MemTotal"] - values["MemFree"]
	working := values["MemTotal"] - values["MemFree"] - min(values["Inactive(file)"], used)
	return &v1alpha1.MemoryStats{AvailableBytes: new(values["MemAvailable"]), UsageBytes: &used, WorkingSetBytes: &working, RSSBytes: new(values["AnonPages"])}, nil
}

// ServeHTTP answers with the summary as JSON.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, err := c.Summary(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // fails only when the client has gone
}

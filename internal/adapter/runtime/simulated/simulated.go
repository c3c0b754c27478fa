// Package simulated is a runtime without processes, for trying a control plane with many pods.
//
// Containers run until they are signalled, or for as long as their annotations say. Everything
// takes the configured time and nothing else; nothing survives the Runtime.
package simulated

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// Annotations of a container that say how it ends by itself.
const (
	// RunsFor is how long it runs, as a Go duration.
	RunsFor = "simulated.ebb.dev/runs-for"
	// EndsWith is its exit code, 0 if absent.
	EndsWith = "simulated.ebb.dev/exit-code"
)

// Config says how a simulated node behaves. Zero values are instant.
type Config struct {
	PodCIDR      netip.Prefix  // addresses of pods; 10.254.0.0/16 if zero
	SandboxTime  time.Duration // StartSandbox takes this long
	StartTime    time.Duration // StartContainer takes this long
	TerminateFor time.Duration // from SIGTERM to the end
	// Dial connects to a pod's port; nil refuses.
	Dial func(ctx context.Context, sb runtime.Sandbox, port uint16) (net.Conn, error)
}

// Runtime implements runtime.Runtime in memory.
type Runtime struct {
	cfg   Config
	first uint32 // address of the range
	exits chan runtime.Container
	done  chan struct{}
	pump  sync.WaitGroup

	mu        sync.Mutex // guards all below
	sandboxes map[string]*sandbox
	owners    map[string]*sandbox // by container ID
	used      map[uint32]bool     // offsets in the range
	next      uint32
	ended     []runtime.Container // not delivered yet
	more      *sync.Cond          // ended or closed changed
	closed    bool
}

type sandbox struct {
	runtime.Sandbox
	offset     uint32
	containers map[string]*container
}

type container struct {
	runtime.Container
	timer *time.Timer // its end, or nil
}

var _ runtime.Runtime = (*Runtime)(nil)

// New makes an empty node.
func New(cfg Config) (*Runtime, error) {
	if !cfg.PodCIDR.IsValid() {
		cfg.PodCIDR = netip.MustParsePrefix("10.254.0.0/16")
	}
	if !cfg.PodCIDR.Addr().Is4() || cfg.PodCIDR.Bits() > 30 {
		return nil, fmt.Errorf("pod range %s is not IPv4 with room for pods", cfg.PodCIDR)
	}
	base := cfg.PodCIDR.Masked().Addr().As4()
	r := &Runtime{
		cfg: cfg, first: binary.BigEndian.Uint32(base[:]), exits: make(chan runtime.Container), done: make(chan struct{}),
		sandboxes: map[string]*sandbox{}, owners: map[string]*sandbox{}, used: map[uint32]bool{},
	}
	r.more = sync.NewCond(&r.mu)
	r.pump.Go(r.deliver)
	return r, nil
}

// wait passes simulated time.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// StartSandbox implements runtime.Runtime.
func (r *Runtime) StartSandbox(ctx context.Context, spec runtime.SandboxSpec) (runtime.Sandbox, error) {
	if spec.ID == "" {
		return runtime.Sandbox{}, errors.New("starting a sandbox: it has no ID")
	}
	if err := wait(ctx, r.cfg.SandboxTime); err != nil {
		return runtime.Sandbox{}, fmt.Errorf("starting sandbox %s: %w", spec.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[spec.ID]; s != nil {
		return s.Sandbox, nil
	}
	s := &sandbox{containers: map[string]*container{}}
	s.Sandbox = runtime.Sandbox{ID: spec.ID, Namespace: spec.Namespace, Name: spec.Name, Created: time.Now(), Annotations: maps.Clone(spec.Annotations)}
	if !spec.HostNetwork {
		if err := r.address(s); err != nil {
			return runtime.Sandbox{}, fmt.Errorf("starting sandbox %s: %w", spec.ID, err)
		}
	}
	r.sandboxes[spec.ID] = s
	return s.Sandbox, nil
}

// address takes the next free one, so that one just given back rests for a while.
func (r *Runtime) address(s *sandbox) error {
	size := uint32(1) << (32 - r.cfg.PodCIDR.Bits())
	for range size {
		r.next = (r.next + 1) % size
		if r.next == 0 || r.next == size-1 || r.used[r.next] {
			continue
		}
		r.used[r.next] = true
		s.offset = r.next
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], r.first+r.next)
		s.IP = netip.AddrFrom4(ip)
		return nil
	}
	return errors.New("no free pod address")
}

// StopSandbox implements runtime.Runtime.
func (r *Runtime) StopSandbox(_ context.Context, sandboxID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[sandboxID]
	if s == nil {
		return nil
	}
	for id, c := range s.containers {
		r.end(c, 137, 9)
		delete(r.owners, id)
	}
	delete(r.sandboxes, sandboxID)
	delete(r.used, s.offset)
	return nil
}

// StartContainer implements runtime.Runtime.
func (r *Runtime) StartContainer(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	fail := func(err error) (runtime.Container, error) {
		return runtime.Container{}, fmt.Errorf("starting container %s: %w", spec.Name, err)
	}
	runs, code, err := script(spec.Annotations)
	if err != nil {
		return fail(err)
	}
	if err := wait(ctx, r.cfg.StartTime); err != nil {
		return fail(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[spec.SandboxID]
	if s == nil {
		return fail(fmt.Errorf("sandbox %s: %w", spec.SandboxID, runtime.ErrNotFound))
	}
	if c := s.containers[spec.ID]; c != nil {
		return c.Container, nil
	}
	c := &container{Container: runtime.Container{
		ID: spec.ID, SandboxID: spec.SandboxID, Name: spec.Name, Attempt: spec.Attempt, Started: time.Now(),
		LogPath: spec.LogPath, Annotations: maps.Clone(spec.Annotations),
	}}
	if runs >= 0 {
		r.endLater(c, runs, code, 0)
	}
	s.containers[spec.ID] = c
	r.owners[spec.ID] = s
	return c.Container, nil
}

// script reads how a container ends by itself; a negative time is never.
func script(annotations map[string]string) (runs time.Duration, code int, err error) {
	runs = -1
	if v, ok := annotations[RunsFor]; ok {
		if runs, err = time.ParseDuration(v); err != nil {
			return 0, 0, fmt.Errorf("annotation %s: %w", RunsFor, err)
		}
	}
	if v, ok := annotations[EndsWith]; ok {
		if code, err = strconv.Atoi(v); err != nil {
			return 0, 0, fmt.Errorf("annotation %s: %w", EndsWith, err)
		}
	}
	return runs, code, nil
}

// endLater ends a container after a time; the lock is held.
func (r *Runtime) endLater(c *container, after time.Duration, code, signal int) {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(after, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.end(c, code, signal)
	})
}

// end ends a container once; the lock is held.
func (r *Runtime) end(c *container, code, signal int) {
	if !c.Running() {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.Finished, c.ExitCode, c.Signal = time.Now(), code, signal
	r.ended = append(r.ended, c.Container)
	r.more.Signal()
}

// find gives a container; the lock is held.
func (r *Runtime) find(id string) (*container, error) {
	s := r.owners[id]
	if s == nil {
		return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	return s.containers[id], nil
}

// SignalContainer implements runtime.Runtime: SIGKILL ends it at once, SIGTERM and SIGINT with code
// 0 after the configured time, others do nothing.
func (r *Runtime) SignalContainer(_ context.Context, containerID string, signal int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find(containerID)
	if err != nil {
		return err
	}
	if !c.Running() {
		return fmt.Errorf("signalling container %s: %w", containerID, runtime.ErrNotRunning)
	}
	switch {
	case signal == 9:
		r.end(c, 137, 9)
	case signal != 15 && signal != 2:
	case r.cfg.TerminateFor <= 0:
		r.end(c, 0, 0)
	default:
		r.endLater(c, r.cfg.TerminateFor, 0, 0)
	}
	return nil
}

// RemoveContainer implements runtime.Runtime.
func (r *Runtime) RemoveContainer(_ context.Context, containerID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find(containerID)
	if err != nil {
		return nil // removed before
	}
	if c.Running() {
		return fmt.Errorf("removing container %s: it still runs", containerID)
	}
	delete(r.owners[containerID].containers, containerID)
	delete(r.owners, containerID)
	return nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(context.Context) ([]runtime.Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]runtime.Sandbox, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		v := s.Sandbox
		for _, c := range s.containers {
			v.Containers = append(v.Containers, c.Container)
		}
		slices.SortFunc(v.Containers, func(a, b runtime.Container) int { return cmp.Compare(a.ID, b.ID) })
		list = append(list, v)
	}
	return list, nil
}

// Exits implements runtime.Runtime.
func (r *Runtime) Exits() <-chan runtime.Container { return r.exits }

// deliver passes ends on in order without holding up who reports them.
func (r *Runtime) deliver() {
	defer close(r.exits)
	for {
		r.mu.Lock()
		for len(r.ended) == 0 && !r.closed {
			r.more.Wait()
		}
		batch := r.ended
		r.ended = nil
		r.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, c := range batch {
			select {
			case <-r.done:
				return
			case r.exits <- c:
			}
		}
	}
}

// Exec implements runtime.Runtime: there is nothing to run commands in.
func (r *Runtime) Exec(_ context.Context, containerID string, _ runtime.ExecSpec) (int, error) {
	return 0, r.refuse(containerID, "running a command in")
}

// Attach implements runtime.Runtime: there are no streams.
func (r *Runtime) Attach(_ context.Context, containerID string, _ runtime.Streams) error {
	return r.refuse(containerID, "attaching to")
}

func (r *Runtime) refuse(containerID, what string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.find(containerID); err != nil {
		return err
	}
	return fmt.Errorf("%s simulated container %s: %w", what, containerID, runtime.ErrUnsupported)
}

// Dial implements runtime.Runtime by the configured function.
func (r *Runtime) Dial(ctx context.Context, sandboxID string, port uint16) (net.Conn, error) {
	r.mu.Lock()
	s := r.sandboxes[sandboxID]
	r.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("sandbox %s: %w", sandboxID, runtime.ErrNotFound)
	}
	if r.cfg.Dial == nil {
		return nil, fmt.Errorf("connecting to port %d of simulated sandbox %s: %w", port, sandboxID, runtime.ErrUnsupported)
	}
	return r.cfg.Dial(ctx, s.Sandbox, port)
}

// Stats implements runtime.Runtime: running containers use nothing.
func (r *Runtime) Stats(_ context.Context, sandboxID string) (runtime.SandboxStats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[sandboxID]
	if s == nil {
		return runtime.SandboxStats{}, fmt.Errorf("sandbox %s: %w", sandboxID, runtime.ErrNotFound)
	}
	stats := runtime.SandboxStats{Time: time.Now(), Containers: map[string]runtime.ContainerStats{}}
	for _, c := range s.containers {
		if c.Running() {
			stats.Containers[c.Name] = runtime.ContainerStats{Started: c.Started, ProcessCount: 1}
		}
	}
	return stats, nil
}

// Close implements runtime.Runtime.
func (r *Runtime) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	for _, s := range r.sandboxes {
		for _, c := range s.containers {
			if c.timer != nil {
				c.timer.Stop()
			}
		}
	}
	r.more.Signal()
	r.mu.Unlock()
	close(r.done)
	r.pump.Wait()
	return nil
}

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// endTime bounds how long a guardian may take to end its pod before it is killed.
const endTime = 5 * time.Second

// clearTime bounds how long taking away what nobody uses may take; the next start tries again.
const clearTime = 10 * time.Second

// sandbox is one pod.
type sandbox struct {
	*slot
	runtime *Runtime
	spec    runtime.SandboxSpec
	created time.Time
	ip      netip.Addr
	pause   int

	starting sync.Mutex     // one StartSandbox or StopSandbox at a time
	kernel   sync.Mutex     // held while the bundle of the pod's own kernel is written
	watched  sync.WaitGroup // the watching goroutine

	mu         sync.Mutex
	up         bool // StartSandbox succeeded
	stopping   bool
	gone       bool // the folder is being removed
	watch      *wire.Conn
	containers map[string]*entry
	groups     int // number of the next container's control group
}

// entry is a container as last heard of.
type entry struct {
	rec  wire.Container
	told bool // its end is delivered or on its way
}

// StartSandbox implements runtime.Runtime.
func (r *Runtime) StartSandbox(ctx context.Context, spec runtime.SandboxSpec) (runtime.Sandbox, error) {
	if err := r.node.check(spec); err != nil {
		return runtime.Sandbox{}, fmt.Errorf("starting sandbox %s/%s: %w", spec.Namespace, spec.Name, err)
	}
	s := r.reserve(spec)
	s.starting.Lock()
	defer s.starting.Unlock()
	if v, ok := s.view(); ok {
		v.Containers = nil
		return v, nil
	}
	if err := r.bringUp(ctx, s); err != nil {
		r.drop(s)
		return runtime.Sandbox{}, fmt.Errorf("starting sandbox %s/%s: %w", spec.Namespace, spec.Name, err)
	}
	v, _ := s.view()
	v.Containers = nil
	return v, nil
}

// reserve makes sure that one ID is worked on once.
func (r *Runtime) reserve(spec runtime.SandboxSpec) *sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[spec.ID]
	if s == nil {
		s = &sandbox{runtime: r, spec: spec, containers: map[string]*entry{}}
		r.sandboxes[spec.ID] = s
	}
	return s
}

func (r *Runtime) drop(s *sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sandboxes[s.spec.ID] == s {
		delete(r.sandboxes, s.spec.ID)
	}
	for id, owner := range r.owners {
		if owner == s {
			delete(r.owners, id)
		}
	}
}

func (r *Runtime) bringUp(ctx context.Context, s *sandbox) error {
	sl, err := r.slotFor(ctx, s.spec)
	if err != nil {
		return err
	}
	s.slot, s.created = sl, time.Now()
	if err := r.furnish(ctx, s); err != nil {
		return errors.Join(err, r.tearDown(context.WithoutCancel(ctx), s))
	}
	s.mu.Lock()
	s.up = true
	s.mu.Unlock()
	return nil
}

// furnish gives the slot to the pod: limits, names, address, record.
func (r *Runtime) furnish(ctx context.Context, s *sandbox) error {
	if r.groups != nil {
		if err := r.groups.Limit(s.Cgroup, s.spec.Resources); err != nil {
			return err
		}
	}
	if s.Network != nil {
		if err := r.cfg.Pods.Assign(s.Network, s.spec.ID); err != nil {
			return err
		}
		s.ip = s.Network.IP
	}
	conf := wire.Configure{Sysctls: s.spec.Sysctls, SharePID: s.spec.ShareProcessNamespace}
	if !s.spec.HostNetwork {
		conf.Hostname = s.spec.Hostname
	}
	if conf.SharePID {
		path := s.Cgroup + "/pause"
		if err := r.makeGroup(path); err != nil {
			return err
		}
		conf.Join = r.procs(path)
	}
	if conf.Hostname != "" || len(conf.Sysctls) > 0 || conf.SharePID {
		reply, err := s.ask(ctx, wire.Request{Configure: &conf})
		if err != nil {
			return err
		}
		s.pause = reply.Pause
	}
	if err := s.save(); err != nil {
		return err
	}
	return r.watchOver(s)
}

func (r *Runtime) makeGroup(path string) error {
	if r.groups == nil {
		return nil
	}
	return r.groups.Make(path)
}

func (r *Runtime) procs(path string) []string {
	if r.groups == nil {
		return nil
	}
	return r.groups.Procs(path)
}

// view is the sandbox as the interface shows it; false while it is not up.
func (s *sandbox) view() (runtime.Sandbox, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		return runtime.Sandbox{}, false
	}
	v := runtime.Sandbox{
		ID: s.spec.ID, Namespace: s.spec.Namespace, Name: s.spec.Name, IP: s.ip, Created: s.created,
		Annotations: maps.Clone(s.spec.Annotations), CgroupPath: s.Cgroup,
	}
	if s.runtime.groups == nil {
		v.CgroupPath = ""
	}
	for _, e := range s.containers {
		if e.rec.PID > 0 { // else it is being started
			v.Containers = append(v.Containers, s.shown(e.rec))
		}
	}
	slices.SortFunc(v.Containers, func(a, b runtime.Container) int { return strings.Compare(a.ID, b.ID) })
	return v, true
}

func (s *sandbox) shown(rec wire.Container) runtime.Container {
	c := runtime.Container{
		ID: rec.ID, SandboxID: s.spec.ID, Name: rec.Name, Attempt: rec.Attempt, PID: rec.PID,
		Started: rec.Started, Finished: rec.Finished, ExitCode: rec.ExitCode, Signal: rec.Signal,
		OOMKilled: rec.OOMKilled, LogPath: rec.LogPath, Annotations: maps.Clone(rec.Annotations),
	}
	if !rec.Finished.IsZero() {
		c.PID = 0
	}
	return c
}

// watchOver follows the sandbox's exits until Close or its end.
func (r *Runtime) watchOver(s *sandbox) error {
	conn, err := s.dial()
	if err == nil {
		err = conn.Send(wire.Request{Watch: true})
	}
	if err != nil {
		return fmt.Errorf("watching the pod: %w", err)
	}
	s.mu.Lock()
	s.watch = conn
	s.mu.Unlock()
	r.work.Add(1)
	s.watched.Go(func() {
		defer r.work.Done()
		defer conn.Close()
		for {
			var reply wire.Reply
			fds, err := conn.Recv(&reply)
			wire.CloseFDs(fds)
			if err != nil {
				s.guardGone(err)
				return
			}
			if reply.Container != nil {
				s.ended(*reply.Container)
			}
		}
	})
	return nil
}

func (s *sandbox) unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		s.watch.Close()
	}
}

// ended notes a container's end and passes it on once.
func (s *sandbox) ended(rec wire.Container) {
	s.mu.Lock()
	e := s.containers[rec.ID]
	if e == nil {
		e = &entry{}
		s.containers[rec.ID] = e
	}
	e.rec = rec
	again := e.told
	e.told = true
	s.mu.Unlock()
	if again {
		return
	}
	s.runtime.queue.add(s.shown(rec), func() { s.remember(rec.ID) })
}

// remember notes that a container's end was taken, unless it was removed meanwhile.
func (s *sandbox) remember(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.containers[id] == nil {
		return
	}
	if err := os.WriteFile(s.file("c", id+".told"), nil, 0o600); err != nil {
		s.runtime.log.Warn("remembering that an exit was told", "container", id, "error", err)
	}
}

// guardGone handles a guardian that ended by itself: its containers have nobody to reap them and
// are killed.
func (s *sandbox) guardGone(cause error) {
	s.mu.Lock()
	stopping := s.stopping
	s.mu.Unlock()
	if stopping || s.runtime.ctx.Err() != nil || errors.Is(cause, os.ErrClosed) {
		return
	}
	if !errors.Is(cause, io.EOF) && s.alive() {
		s.runtime.log.Warn("lost the pod's guardian's connection", "pod", s.spec.Name, "error", cause)
	}
	s.runtime.log.Warn("the pod's guardian ended", "namespace", s.spec.Namespace, "pod", s.spec.Name)
	s.bury(s.runtime.ctx)
}

// StopSandbox implements runtime.Runtime.
func (r *Runtime) StopSandbox(ctx context.Context, sandboxID string) error {
	s, err := r.sandbox(sandboxID)
	if err != nil {
		return nil // stopped before
	}
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.slot == nil {
		return nil
	}
	if err := r.tearDown(ctx, s); err != nil {
		return fmt.Errorf("stopping sandbox %s/%s: %w", s.spec.Namespace, s.spec.Name, err)
	}
	r.drop(s)
	return nil
}

// tearDown ends the pod and frees everything it had. It can be repeated.
func (r *Runtime) tearDown(ctx context.Context, s *sandbox) error {
	s.mu.Lock()
	s.stopping = true
	watch := s.watch
	s.mu.Unlock()
	s.endGuard(ctx)
	if watch != nil {
		watch.File().SetReadDeadline(time.Now().Add(time.Second)) //nolint:errcheck // it is closed next in any case
		s.watched.Wait()                                          // every exit it told is queued
	}
	var errs []error
	if r.groups != nil {
		errs = append(errs, r.groups.Kill(ctx, s.Cgroup), r.groups.Remove(ctx, s.Cgroup))
	}
	s.buryAll()
	errs = append(errs, r.releaseNetwork(ctx, s.slot, s.spec.ID))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	return os.RemoveAll(s.dir)
}

func (r *Runtime) releaseNetwork(ctx context.Context, sl *slot, owner string) error {
	if sl.Network == nil || r.cfg.Pods == nil {
		return nil
	}
	if owner == "" {
		return r.cfg.Pods.Discard(ctx, sl.Network)
	}
	if _, ok := r.cfg.Pods.Lookup(owner); !ok {
		return r.cfg.Pods.Discard(ctx, sl.Network)
	}
	return r.cfg.Pods.Release(ctx, owner)
}

// save writes the pod's record.
func (s *sandbox) save() error {
	return writeJSON(s.file("sandbox.json"), sandboxRecord{Spec: s.spec, Created: s.created, Pause: s.pause})
}

type sandboxRecord struct {
	Spec    runtime.SandboxSpec
	Created time.Time
	Pause   int `json:",omitempty"`
}

// file is a path in the slot's folder.
func (sl *slot) file(parts ...string) string {
	return filepath.Join(append([]string{sl.dir}, parts...)...)
}

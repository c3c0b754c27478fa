package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/bundle"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// StartContainer implements runtime.Runtime.
func (r *Runtime) StartContainer(ctx context.Context, c runtime.ContainerSpec) (runtime.Container, error) {
	fail := func(err error) (runtime.Container, error) {
		return runtime.Container{}, fmt.Errorf("starting container %s: %w", c.Name, err)
	}
	if err := checkContainer(c); err != nil {
		return fail(err)
	}
	s, err := r.sandbox(c.SandboxID)
	if err != nil {
		return fail(err)
	}
	group, known, err := s.admit(c)
	if err != nil {
		return fail(err)
	}
	if known != nil {
		return *known, nil
	}
	r.mu.Lock()
	r.owners[c.ID] = s
	r.mu.Unlock()
	rec, err := r.launch(ctx, s, c, group)
	if err != nil {
		r.mu.Lock()
		delete(r.owners, c.ID)
		r.mu.Unlock()
		return fail(errors.Join(err, s.discard(context.WithoutCancel(ctx), c.ID, group)))
	}
	return s.shown(s.note(rec)), nil
}

func checkContainer(c runtime.ContainerSpec) error {
	if c.ID == "" || strings.ContainsAny(c.ID, "/\x00") || c.ID[0] == '.' || len(c.ID) > 200 {
		return fmt.Errorf("container ID %q is not a name", c.ID)
	}
	if len(c.Process.Args) == 0 {
		return errors.New("no command")
	}
	if len(c.RootFS) == 0 {
		return errors.New("the image has no layers")
	}
	return nil
}

// admit reserves a control group for a new container, or gives the one that has the ID already.
func (s *sandbox) admit(c runtime.ContainerSpec) (group string, known *runtime.Container, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up || s.stopping {
		return "", nil, fmt.Errorf("sandbox %s: %w", s.spec.ID, runtime.ErrNotRunning)
	}
	if e := s.containers[c.ID]; e != nil {
		if e.rec.PID == 0 {
			return "", nil, errors.New("it is being started")
		}
		v := s.shown(e.rec)
		return "", &v, nil
	}
	s.containers[c.ID] = &entry{rec: wire.Container{ID: c.ID}}
	group = s.Cgroup + "/c" + strconv.Itoa(s.groups)
	s.groups++
	return group, nil, nil
}

// note keeps a started container's record, unless its end was heard of first.
func (s *sandbox) note(rec wire.Container) wire.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.containers[rec.ID]; e != nil && !e.rec.Finished.IsZero() {
		return e.rec
	}
	s.containers[rec.ID] = &entry{rec: rec}
	return rec
}

// launch prepares the container's parts and has the guardian start it.
func (r *Runtime) launch(ctx context.Context, s *sandbox, c runtime.ContainerSpec, group string) (wire.Container, error) {
	files := &fdList{}
	defer files.close()
	start, err := r.plan(s, c, group, files)
	if err != nil {
		return wire.Container{}, err
	}
	if r.groups != nil && s.spec.Handler == "" { // an OCI runtime makes its own
		if err := r.prepareGroup(group, c); err != nil {
			return wire.Container{}, err
		}
	}
	reply, err := s.ask(ctx, wire.Request{Start: &start}, files.fds...)
	if err != nil {
		return wire.Container{}, err
	}
	if reply.Container == nil {
		return wire.Container{}, errors.New("the pod's guardian answered nothing")
	}
	return *reply.Container, nil
}

func (r *Runtime) prepareGroup(group string, c runtime.ContainerSpec) error {
	if err := r.groups.Make(group); err != nil {
		return err
	}
	if err := r.groups.Limit(group, c.Resources); err != nil {
		return err
	}
	return r.groups.AllowDevices(group, bundle.DeviceRules(c.Privileged))
}

// plan says how the container is made; files collects what the guardian needs opened.
func (r *Runtime) plan(s *sandbox, c runtime.ContainerSpec, group string, files *fdList) (wire.Start, error) {
	layer := "u/" + c.ID
	for _, d := range []string{layer, layer + "/upper", layer + "/work"} {
		if err := os.Mkdir(s.file(d), 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // the upper folder's mode is that of the container's root
			return wire.Start{}, fmt.Errorf("making the writable layer: %w", err)
		}
	}
	start := wire.Start{
		Container: wire.Container{
			ID: c.ID, Name: c.Name, Attempt: c.Attempt, Cgroup: group, Dir: layer, LogPath: c.LogPath,
			Annotations: c.Annotations, Terminal: c.Process.Terminal,
		},
		Join:  r.procs(group),
		Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		HostPID: s.spec.HostPID, SharePID: s.spec.ShareProcessNamespace && !s.spec.HostPID,
	}
	if r.groups != nil {
		start.OOMFile = r.groups.OOMFile(group)
	}
	var err error
	if c.LogPath != "" {
		if start.LogName, err = files.logFolder(c.LogPath); err != nil {
			return wire.Start{}, err
		}
	}
	describe := r.describe
	if s.spec.Handler != "" {
		describe = r.describeOCI
	}
	if err := describe(s, c, &start, files); err != nil {
		return wire.Start{}, err
	}
	start.Stage.Root.Layers, start.Stage.Root.Readonly = c.RootFS, c.ReadOnlyRootFS
	start.Stage.Root.Upper, start.Stage.Root.Work = s.file(layer, "upper"), s.file(layer, "work")
	return start, nil
}

// place says where a container of a sandbox is put.
func (r *Runtime) place(s *sandbox, group string) bundle.Place {
	return bundle.Place{
		Guard: s.Guard.PID, Pause: s.pause, CgroupPath: group, Shm: s.file("shm"),
		Devices: r.node.devices, Allowed: r.node.allowed, OOMScoreAdj: r.node.oom,
	}
}

// describe translates the container's spec for our own pod program.
func (r *Runtime) describe(s *sandbox, c runtime.ContainerSpec, start *wire.Start, files *fdList) error {
	place := r.place(s, start.Container.Cgroup)
	stage, binds, err := bundle.Plan(bundle.Build(s.spec, c, place), r.groups, place.Shm)
	if err != nil {
		return err
	}
	filter, err := r.filters.Compile(c.Seccomp)
	if err != nil {
		return err
	}
	stage.Process.Seccomp, stage.Process.SeccompFlag = filter.Program, filter.Flags
	stage.Root.At = s.file("root")
	for i, b := range binds {
		dir, err := files.bind(b)
		if err != nil {
			return err
		}
		markFolder(stage.Mounts, i, dir)
	}
	start.Stage = stage
	start.CgroupFD = r.groupFolder(start.Container.Cgroup)
	return nil
}

// markFolder notes whether the n-th opened bind is a folder, so that its target becomes one.
func markFolder(mounts []wire.Mount, n int, dir bool) {
	for i := range mounts {
		if !mounts[i].Bind || mounts[i].From != "" {
			continue
		}
		if n == 0 {
			mounts[i].Dir = dir
			return
		}
		n--
	}
}

// fdList are descriptors on their way to a guardian.
type fdList struct{ fds []int }

func (l *fdList) close() { wire.CloseFDs(l.fds) }

// logFolder opens the folder of a log and returns the file's name.
func (l *fdList) logFolder(path string) (string, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // logs are read by collectors that are not root
		return "", fmt.Errorf("making the log's folder: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("opening the log's folder: %w", err)
	}
	l.fds = append(l.fds, fd)
	return filepath.Base(path), nil
}

// bind takes a copy of the mount tree at a source. It is opened here, where paths mean what the
// caller meant and /proc/self/fd is ours.
func (l *fdList) bind(b bundle.Bind) (dir bool, err error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if b.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, b.Source, flags)
	if err != nil {
		return false, fmt.Errorf("opening mount source %s: %w", b.Source, err)
	}
	l.fds = append(l.fds, fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, fmt.Errorf("opening mount source %s: %w", b.Source, err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// SignalContainer implements runtime.Runtime.
func (r *Runtime) SignalContainer(ctx context.Context, containerID string, signal int) error {
	s, err := r.owner(containerID)
	if err != nil {
		return err
	}
	req := wire.Signal{ID: containerID, Signal: signal, All: signal == int(unix.SIGKILL)}
	if _, err := s.ask(ctx, wire.Request{Signal: &req}); err != nil {
		return fmt.Errorf("signalling container %s: %w", containerID, err)
	}
	return nil
}

// RemoveContainer implements runtime.Runtime.
func (r *Runtime) RemoveContainer(ctx context.Context, containerID string) error {
	s, err := r.owner(containerID)
	if err != nil {
		return nil //nolint:nilerr // removed before
	}
	s.mu.Lock()
	e := s.containers[containerID]
	s.mu.Unlock()
	if e != nil && e.rec.PID > 0 && e.rec.Finished.IsZero() {
		return fmt.Errorf("removing container %s: it still runs", containerID)
	}
	if s.alive() {
		_, err := s.ask(ctx, wire.Request{Forget: &wire.Forget{ID: containerID}})
		if err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return fmt.Errorf("removing container %s: %w", containerID, err)
		}
	}
	r.mu.Lock()
	delete(r.owners, containerID)
	r.mu.Unlock()
	group := ""
	if e != nil {
		group = e.rec.Cgroup
	}
	return s.discard(ctx, containerID, group)
}

// discard frees a container's folder and control group.
func (s *sandbox) discard(ctx context.Context, id, group string) error {
	s.mu.Lock()
	delete(s.containers, id)
	s.mu.Unlock()
	var errs []error
	if s.runtime.groups != nil && group != "" {
		errs = append(errs, s.runtime.groups.Kill(ctx, group), s.runtime.groups.Remove(ctx, group))
	}
	for _, f := range []string{s.file("u", id), s.file("b", id), s.file("c", id+".json"), s.file("c", id+".told")} {
		errs = append(errs, os.RemoveAll(f))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing container %s: %w", id, err)
	}
	return nil
}

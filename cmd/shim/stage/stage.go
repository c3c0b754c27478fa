// Package stage turns a fresh process into a container's program.
//
// The process was cloned by the guardian into the container's namespaces and waits on a socket for
// its wire.Stage. It assembles the root file system, gives up what the container may not have, and
// executes the program. Nothing of the image runs before that, and every path of the image is
// resolved inside its root by descriptor.
package stage

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// errBadCommand marks failures that are the image's or the user's own: the program cannot be run.
var errBadCommand = errors.New("cannot be executed")

// stager carries one stage through its steps.
type stager struct {
	conn  *wire.Conn
	plan  wire.Stage
	fds   []int // files that came with the plan and are not used yet
	root  int   // the root folder, O_PATH
	tty   int   // the terminal's other side, or -1
	stdio [3]int
}

// Main runs one stage on the socket fd and returns only when that failed. The caller has locked
// its goroutine to the process's first thread: that thread becomes the program.
func Main(fd int) int {
	conn, err := wire.New(fd)
	if err != nil {
		return 125
	}
	s := &stager{conn: conn, root: -1, tty: -1}
	if s.fds, err = conn.Recv(&s.plan); err != nil {
		return 125 // the guardian let go of us
	}
	err = s.run()
	report := wire.Report{Error: err.Error()}
	if errors.Is(err, errBadCommand) {
		report.Kind = wire.BadCommand
	}
	_ = conn.Send(report) // nobody else could be told
	return 125
}

func (s *stager) run() error {
	// Nobody in a container we enter may look into us.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hiding from ptrace: %w", err)
	}
	if err := setOOMScoreAdj(s.plan.Process.OOMScoreAdj); err != nil {
		return err
	}
	if !s.plan.Process.Terminal {
		for i := range s.stdio {
			fd, err := s.take()
			if err != nil {
				return err
			}
			s.stdio[i] = fd
		}
	}
	place := s.build
	if s.plan.Enter {
		place = s.enter
	}
	if err := place(); err != nil {
		return err
	}
	return s.become()
}

// take gives the next file that came with the plan.
func (s *stager) take() (int, error) {
	if len(s.fds) == 0 {
		return -1, errors.New("reading the plan: a file is missing")
	}
	fd := s.fds[0]
	s.fds = s.fds[1:]
	return fd, nil
}

// build makes the container's root and moves into it.
func (s *stager) build() error {
	if s.plan.CgroupNS {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil && err != unix.EINVAL {
			return fmt.Errorf("making a cgroup namespace: %w", err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separating mounts from the node's: %w", err)
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, step := range []func() error{s.mountRoot, s.mountAll, s.makeDevices, s.openTerminal, s.hide, s.pivot} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// enter joins the namespaces of a running container; the process namespace came with the clone.
func (s *stager) enter() error {
	pidfd, err := s.take()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the guardian's folder: %w", err)
	}
	if s.plan.CgroupNS {
		if err := unix.Setns(pidfd, unix.CLONE_NEWCGROUP); err != nil && err != unix.EINVAL {
			return fmt.Errorf("joining the cgroup namespace: %w", err)
		}
	}
	if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("joining the mount namespace: %w", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the root: %w", err)
	}
	s.root = root
	return s.openTerminal()
}

// become gives up what the container may not have and executes the program.
func (s *stager) become() error {
	p := s.plan.Process
	if err := s.wireStdio(); err != nil {
		return err
	}
	for _, l := range p.Rlimits {
		if err := setRlimit(l); err != nil {
			return err
		}
	}
	if err := s.restrict(p); err != nil {
		return err
	}
	env := withHome(p.Env, p.UID)
	if err := changeFolder(p.Cwd); err != nil {
		return err
	}
	path, err := lookPath(p.Args, env)
	if err != nil {
		return err
	}
	umask := 0o022
	if p.Umask != nil {
		umask = int(*p.Umask)
	}
	unix.Umask(umask)
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("closing files: %w", err)
	}
	if err := s.conn.Send(wire.Report{Ready: true}); err != nil {
		return err
	}
	if p.NoNewPrivs {
		if err := filter(p); err != nil {
			return err
		}
	}
	err = syscall.Exec(path, p.Args, env)
	return fmt.Errorf("executing %s: %w: %w", path, errBadCommand, err)
}

// setOOMScoreAdj tells the kernel how soon to kill us. Without the right to lower it the value
// stays, which the runtime lists among its limits.
func setOOMScoreAdj(adj *int) error {
	if adj == nil {
		return nil
	}
	err := os.WriteFile("/proc/self/oom_score_adj", fmt.Appendf(nil, "%d", *adj), 0)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("setting oom_score_adj to %d: %w", *adj, err)
	}
	return nil
}

// setRlimit sets one limit, or as much of it as we are allowed.
func setRlimit(l wire.Rlimit) error {
	want := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
	err := unix.Prlimit(0, l.Resource, &want, nil)
	if err == unix.EPERM {
		var have unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &have); err != nil {
			return fmt.Errorf("reading resource limit %d: %w", l.Resource, err)
		}
		want = unix.Rlimit{Cur: min(l.Soft, have.Max), Max: have.Max}
		err = unix.Prlimit(0, l.Resource, &want, nil)
	}
	if err != nil {
		return fmt.Errorf("setting resource limit %d: %w", l.Resource, err)
	}
	return nil
}

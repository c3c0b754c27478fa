package guard

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// exec runs a further process in a container. The streams are the asker's own files, so the
// process ends with the asker.
func (g *guard) exec(conn *wire.Conn, e wire.Exec, files *fileQueue) (wire.Reply, error) {
	c, err := g.find(e.ID)
	if err != nil {
		return wire.Reply{}, err
	}
	rec := c.record()
	if !rec.Finished.IsZero() {
		return wire.Reply{}, errNotRunning
	}
	run := g.execStaged
	if rec.OCI != nil {
		run = g.execOCI
	}
	pid, exited, err := run(conn, c, e, files)
	if err != nil {
		return wire.Reply{}, err
	}
	files.close() // only the process keeps its streams open
	stop := g.killOnHangup(conn, pid)
	end := <-exited
	stop()
	return wire.Reply{Exited: true, ExitCode: end.code}, nil
}

// execStaged runs it in a container of our own.
func (g *guard) execStaged(conn *wire.Conn, c *container, e wire.Exec, files *fileQueue) (int, <-chan exit, error) {
	pidfd, err := unix.PidfdOpen(c.record().PID, 0)
	if err != nil {
		return 0, nil, errNotRunning
	}
	defer unix.Close(pidfd)
	s, err := g.stage(spawn{pidns: pidfd, cgroup: c.start.CgroupFD})
	if err != nil {
		return 0, nil, fmt.Errorf("cloning: %w", err)
	}
	if c.start.CgroupFD == "" {
		if err := join(c.start.Join, s.pid); err != nil {
			s.drop()
			return 0, nil, err
		}
	}
	plan := wire.Stage{Process: c.start.Stage.Process, Enter: true, CgroupNS: c.start.Stage.CgroupNS}
	plan.Process.Args, plan.Process.Terminal, plan.Process.Size = e.Args, e.Terminal, e.Size
	if err := s.conn.Send(plan, append(slices.Clip(files.fds), pidfd)...); err != nil {
		s.drop()
		return 0, nil, fmt.Errorf("sending the plan: %w", err)
	}
	master, err := s.await()
	if err != nil {
		if master >= 0 {
			unix.Close(master)
		}
		s.drop()
		return 0, nil, err
	}
	s.conn.Close()
	var ride []int
	if master >= 0 {
		defer unix.Close(master)
		ride = []int{master}
	}
	if err := conn.Send(wire.Reply{Started: true}, ride...); err != nil {
		_ = g.reaper.kill(s.pid, unix.SIGKILL)
	}
	return s.pid, s.exited, nil
}

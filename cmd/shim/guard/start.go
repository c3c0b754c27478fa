package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// park starts a process that waits, already in its cgroup, for the first container. Without one,
// starting a container makes its own.
func (g *guard) park(text string) {
	defer close(g.parking)
	if text == "" {
		return
	}
	s, err := g.parkStage(text)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parked, g.parkErr = s, err
}

func (g *guard) parkStage(text string) (*staged, error) {
	var p wire.Park
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, fmt.Errorf("parking: %w", err)
	}
	s, err := g.stage(spawn{flags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, pidns: -1, cgroup: p.CgroupFD})
	if err != nil {
		return nil, fmt.Errorf("parking: %w", err)
	}
	s.cgroup = p.Cgroup
	if p.CgroupFD == "" {
		err = join(p.Join, s.pid)
	}
	if err != nil {
		s.drop()
		return nil, fmt.Errorf("parking: %w", err)
	}
	return s, nil
}

// drop ends a process that did not become a container.
func (s *staged) drop() {
	_ = s.reaper.kill(s.pid, unix.SIGKILL)
	s.conn.Close()
	<-s.exited
}

// configure makes the pod's own settings in its namespaces.
func (g *guard) configure(c wire.Configure) (wire.Reply, error) {
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return wire.Reply{}, fmt.Errorf("setting host name %s: %w", c.Hostname, err)
		}
	}
	for key, value := range c.Sysctls {
		if err := setSysctl(key, value); err != nil {
			return wire.Reply{}, fmt.Errorf("setting sysctl %s: %w", key, err)
		}
	}
	if c.SharePID {
		if err := g.startPause(c.Join); err != nil {
			return wire.Reply{}, err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return wire.Reply{Pause: g.pause}, nil
}

// startPause makes the process namespace that the pod's containers share.
func (g *guard) startPause(procs []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	pid, _, err := g.fork(spawn{flags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, pidns: -1}, "pause", w)
	w.Close()
	if err != nil {
		return fmt.Errorf("starting the pod's process 1: %w", err)
	}
	if err := join(procs, pid); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		return fmt.Errorf("starting the pod's process 1: %w", err)
	}
	_, _ = r.Read(make([]byte, 1)) // returns when it is set up, or dead
	if err := unix.Kill(pid, 0); err != nil {
		return fmt.Errorf("starting the pod's process 1: it ended: %w", err)
	}
	g.mu.Lock()
	g.pause = pid
	g.mu.Unlock()
	return nil
}

// start runs a container and answers once its program is executed.
func (g *guard) start(conn *wire.Conn, s wire.Start, files *fileQueue) (wire.Reply, error) {
	g.mu.Lock()
	if c := g.containers[s.Container.ID]; c != nil {
		g.mu.Unlock()
		rec := c.record()
		return wire.Reply{Container: &rec}, nil
	}
	g.mu.Unlock()
	c := &container{start: s, rec: s.Container, reaper: g.reaper, hub: newHub(), gone: make(chan struct{}), stdin: &input{}}
	if s.LogName != "" {
		dir, err := files.take()
		if err != nil {
			return wire.Reply{}, err
		}
		if c.log, err = openLog(dir, s.LogName); err != nil {
			return wire.Reply{}, fmt.Errorf("opening log %s: %w", s.LogName, err)
		}
	}
	launch := g.launch
	if s.Container.OCI != nil {
		launch = g.launchOCI
	}
	exited, err := launch(conn, c, files)
	if err != nil {
		c.abandon()
		return wire.Reply{}, err
	}
	rec := c.record()
	if err := saveRecord(rec); err != nil {
		g.killAll(c)
		<-exited
		c.abandon()
		return wire.Reply{}, fmt.Errorf("recording container %s: %w", rec.ID, err)
	}
	g.mu.Lock()
	g.containers[rec.ID] = c
	g.mu.Unlock()
	for i, f := range c.outputs {
		c.pumps.Add(1)
		go c.pump(i+1, f)
	}
	go g.await(c, exited)
	return wire.Reply{Container: &rec}, nil
}

// abandon frees what a container that did not start holds.
func (c *container) abandon() {
	c.stdin.close()
	for _, f := range c.outputs {
		f.Close()
	}
	c.log.close()
}

// launch stages a container of our own.
func (g *guard) launch(conn *wire.Conn, c *container, files *fileQueue) (<-chan exit, error) {
	s, err := g.stageFor(c.start)
	if err != nil {
		return nil, fmt.Errorf("cloning: %w", err)
	}
	stop := g.killOnHangup(conn, s.pid)
	defer stop()
	if err := g.prepare(c, s, files); err != nil {
		s.drop()
		return nil, err
	}
	s.conn.Close()
	ticks, err := startTicks(s.pid)
	if err != nil { // it ended already; its number cannot be reused before we reap it
		ticks = 0
	}
	c.rec.PID, c.rec.StartTicks, c.rec.Started = s.pid, ticks, time.Now()
	return s.exited, nil
}

// stageFor gives a process in the right namespaces and cgroups: the parked one if it fits.
func (g *guard) stageFor(start wire.Start) (*staged, error) {
	own := !start.HostPID && !start.SharePID
	<-g.parking
	g.mu.Lock()
	s, pause := g.parked, g.pause
	fits := s != nil && own && s.cgroup == start.Container.Cgroup
	if fits {
		g.parked = nil
	}
	g.mu.Unlock()
	if fits {
		return s, nil
	}
	how := spawn{flags: unix.CLONE_NEWNS, pidns: -1, cgroup: start.CgroupFD}
	if own {
		how.flags |= unix.CLONE_NEWPID
	}
	if start.SharePID {
		fd, err := unix.PidfdOpen(pause, 0)
		if err != nil {
			return nil, fmt.Errorf("finding the pod's process 1: %w", err)
		}
		defer unix.Close(fd)
		how.pidns = fd
	}
	s, err := g.stage(how)
	if err != nil {
		return nil, err
	}
	if how.cgroup != "" { // cloned into it
		return s, nil
	}
	if err := join(start.Join, s.pid); err != nil {
		s.drop()
		return nil, err
	}
	return s, nil
}

// prepare sends the plan and waits until the program is executed.
func (g *guard) prepare(c *container, s *staged, files *fileQueue) error {
	theirs, err := c.openStdio()
	if err != nil {
		return err
	}
	defer closeAll(theirs)
	fds := make([]int, 0, len(theirs)+len(files.fds))
	for _, f := range theirs {
		fds = append(fds, int(f.Fd()))
	}
	if err := s.conn.Send(c.start.Stage, append(fds, files.fds...)...); err != nil {
		return fmt.Errorf("sending the plan: %w", err)
	}
	master, err := s.await()
	if master >= 0 {
		c.useTerminal(master)
	}
	return err
}

// await follows a stage until it has become the program; master is a terminal's or -1.
func (s *staged) await() (master int, err error) {
	master = -1
	ready := false
	for {
		var r wire.Report
		fds, err := s.conn.Recv(&r)
		switch {
		case errors.Is(err, io.EOF) && ready:
			return master, nil
		case err != nil:
			return master, fmt.Errorf("the process ended before its program began: %w", err)
		case r.Kind == wire.BadCommand:
			return master, fmt.Errorf("%s%w", r.Error, bare(errBadCommand))
		case r.Error != "":
			return master, errors.New(r.Error)
		case r.Master && len(fds) == 1:
			master = fds[0]
			if err := unix.SetNonblock(master, true); err != nil {
				return master, err
			}
		default:
			wire.CloseFDs(fds)
		}
		ready = ready || r.Ready
	}
}

// openStdio makes the pipes of a container without a terminal and returns its ends.
func (c *container) openStdio() ([]*os.File, error) {
	if c.start.Stage.Process.Terminal {
		return nil, nil
	}
	var theirs []*os.File
	fail := func(err error) ([]*os.File, error) {
		closeAll(theirs)
		return nil, fmt.Errorf("making streams: %w", err)
	}
	if c.start.Stdin {
		r, w, err := pipe(false)
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, r)
		c.stdin.file = w
	} else {
		null, err := os.OpenFile("/dev/null", os.O_RDONLY, 0)
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, null)
	}
	for range 2 {
		r, w, err := pipe(true)
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, w)
		c.outputs = append(c.outputs, r)
	}
	return theirs, nil
}

// useTerminal makes the terminal's master the container's input and only output.
func (c *container) useTerminal(master int) {
	f := os.NewFile(uintptr(master), "terminal")
	c.outputs = []*os.File{f}
	c.stdin = &input{file: f, keep: true}
}

// pipe makes a pipe whose guardian's end is polled and whose container's end blocks.
func pipe(weRead bool) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	ours := p[1]
	if weRead {
		ours = p[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		wire.CloseFDs(p[:])
		return nil, nil, err
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// killOnHangup kills the process if the asker goes away before stop is called.
func (g *guard) killOnHangup(conn *wire.Conn, pid int) (stop func()) {
	done := make(chan struct{})
	go func() {
		waitHangup(conn)
		select {
		case <-done:
		default:
			_ = g.reaper.kill(pid, unix.SIGKILL)
		}
	}()
	return func() { close(done) }
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// bare wraps an error for errors.Is without adding text.
func bare(err error) error { return silent{err} }

type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

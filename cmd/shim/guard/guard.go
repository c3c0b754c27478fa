// Package guard is the process that keeps a pod.
//
// A guardian sits in the pod's network, IPC and host name namespaces, is the parent of its
// containers' first processes, writes their logs and remembers how they ended. It outlives ebb and
// is found again by the socket in its folder. It lives on the node's side of every limit: nothing a
// pod does may starve or kill it.
package guard

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/cmd/shim/stage"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// errNotFound and errNotRunning travel to ebb as kinds of a wire.Reply.
var (
	errNotFound   = errors.New("no such container")
	errNotRunning = errors.New("the container is not running")
	errBadCommand = errors.New("the program cannot be run")
)

// guard keeps one pod. Its folder is the working folder.
type guard struct {
	reaper *reaper

	mu         sync.Mutex
	containers map[string]*container
	watchers   map[*wire.Conn]struct{}
	parked     *staged // a process held ready for the next container, or nil
	parkErr    error   // why there is none

	booting sync.Mutex    // guards kernel and halted, held while the kernel is started
	kernel  *wire.OCI     // that runs the pod's own kernel, or nil
	halted  chan struct{} // closed at the kernel's end

	parking chan struct{} // closed once parked and parkErr are settled
	pause   int           // process 1 of a shared process namespace, or 0
}

// surviveSignals keeps the guard running through signals meant for the terminal it was started from.
// They are caught, not ignored: what is ignored stays so in every program a container executes.
func surviveSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
}

// Main serves the listening socket fd until it is told to end.
func Main(listener int) int {
	debug.SetGCPercent(50)
	surviveSignals()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "guard: adopting orphans:", err)
		return 1
	}
	if err := stage.MountShared(); err != nil {
		fmt.Fprintln(os.Stderr, "guard: making shared memory:", err)
		return 1
	}
	g := &guard{
		reaper:     newReaper(),
		containers: map[string]*container{},
		watchers:   map[*wire.Conn]struct{}{},
		parking:    make(chan struct{}),
	}
	go g.forwardTerm()
	go g.park(os.Getenv(wire.ParkEnv))
	if err := g.accept(listener); err != nil {
		fmt.Fprintln(os.Stderr, "guard: accepting:", err)
	}
	return 1
}

func (g *guard) accept(listener int) error {
	if err := unix.SetNonblock(listener, true); err != nil {
		return err
	}
	raw, err := os.NewFile(uintptr(listener), "listener").SyscallConn()
	if err != nil {
		return err
	}
	for {
		var fd int
		var err error
		waited := raw.Read(func(l uintptr) bool {
			fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case waited != nil:
			return waited
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EMFILE):
			continue
		case err != nil:
			return err
		}
		conn, err := wire.New(fd)
		if err != nil {
			continue
		}
		go g.serve(conn)
	}
}

// serve answers one connection, which carries one request.
func (g *guard) serve(conn *wire.Conn) {
	defer conn.Close()
	if _, uid, err := conn.Peer(); err != nil || uid != os.Getuid() {
		return
	}
	var req wire.Request
	fds, err := conn.Recv(&req)
	if err != nil {
		return
	}
	files := &fileQueue{fds: fds}
	defer files.close()
	reply, err := g.handle(conn, req, files)
	if err != nil {
		reply = wire.Reply{Error: err.Error(), Kind: kind(err)}
	}
	_ = conn.Send(reply) // the asker may be gone
}

func (g *guard) handle(conn *wire.Conn, req wire.Request, files *fileQueue) (wire.Reply, error) {
	switch {
	case req.Configure != nil:
		return g.configure(*req.Configure)
	case req.Parked:
		<-g.parking
		return wire.Reply{}, g.parkErr
	case req.Start != nil:
		return g.start(conn, *req.Start, files)
	case req.Signal != nil:
		return wire.Reply{}, g.signal(*req.Signal)
	case req.Exec != nil:
		return g.exec(conn, *req.Exec, files)
	case req.Attach != nil:
		return wire.Reply{}, g.attach(conn, *req.Attach)
	case req.Forget != nil:
		return wire.Reply{}, g.forget(req.Forget.ID)
	case req.Watch:
		return wire.Reply{}, g.watch(conn)
	case req.End:
		g.end()
	}
	return wire.Reply{}, errors.New("unknown request")
}

func kind(err error) string {
	switch {
	case errors.Is(err, errNotFound):
		return wire.NotFound
	case errors.Is(err, errNotRunning):
		return wire.NotRunning
	case errors.Is(err, errBadCommand):
		return wire.BadCommand
	}
	return ""
}

// watch sends every exit from now on until the peer hangs up.
func (g *guard) watch(conn *wire.Conn) error {
	g.mu.Lock()
	g.watchers[conn] = struct{}{}
	var ended []wire.Container
	for _, c := range g.containers {
		if rec := c.record(); !rec.Finished.IsZero() {
			ended = append(ended, rec)
		}
	}
	g.mu.Unlock()
	for i := range ended {
		_ = conn.Send(wire.Reply{Container: &ended[i]})
	}
	waitHangup(conn)
	g.mu.Lock()
	delete(g.watchers, conn)
	g.mu.Unlock()
	return errors.New("hung up")
}

func (g *guard) tell(rec wire.Container) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.watchers {
		_ = conn.Send(wire.Reply{Container: &rec}) // a lost watcher reads the state file
	}
}

// waitHangup returns when the peer closed; it sends nothing more.
func waitHangup(conn *wire.Conn) {
	var none wire.Request
	fds, _ := conn.Recv(&none)
	wire.CloseFDs(fds)
}

func (g *guard) find(id string) (*container, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.containers[id]
	if c == nil {
		return nil, errNotFound
	}
	return c, nil
}

// forwardTerm passes a shutdown of the node on to the containers.
func (g *guard) forwardTerm() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	for range term {
		g.mu.Lock()
		for _, c := range g.containers {
			go func() { _ = g.terminate(c, unix.SIGTERM) }() // it may call a program
		}
		empty := len(g.containers) == 0
		g.mu.Unlock()
		if empty {
			os.Exit(0)
		}
	}
}

// end kills everything and exits; the kernel frees the namespaces.
func (g *guard) end() {
	<-g.parking
	g.mu.Lock()
	if g.parked != nil {
		_ = g.reaper.kill(g.parked.pid, unix.SIGKILL)
	}
	var all []*container
	for _, c := range g.containers {
		all = append(all, c)
	}
	pause := g.pause
	g.mu.Unlock()
	for _, c := range all {
		g.killAll(c)
	}
	for _, c := range all {
		<-c.gone
	}
	g.halt()
	if pause > 0 {
		_ = g.reaper.kill(pause, unix.SIGKILL)
	}
	os.Exit(0)
}

// fileQueue hands out the descriptors that came with a request and closes the rest.
type fileQueue struct{ fds []int }

func (q *fileQueue) take() (int, error) {
	if len(q.fds) == 0 {
		return -1, errors.New("a file is missing in the request")
	}
	fd := q.fds[0]
	q.fds = q.fds[1:]
	return fd, nil
}

func (q *fileQueue) close() {
	wire.CloseFDs(q.fds)
	q.fds = nil
}

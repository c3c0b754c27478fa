package guard

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// exit is how a process ended.
type exit struct {
	code, signal int
	at           time.Time
}

// reaper collects every child, ours and adopted ones, without a thread for each.
type reaper struct {
	mu      sync.Mutex // held while forking, so that no child ends before it is known
	waiting map[int]chan exit
	strays  map[int]exit // ends nobody waited for, kept while keep > 0
	keep    int
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan exit{}, strays: map[int]exit{}}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			r.collect()
		}
	}()
	return r
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		e := exit{code: status.ExitStatus(), at: time.Now()}
		if status.Signaled() {
			e.signal = int(status.Signal())
			e.code = 128 + e.signal
		}
		if ch := r.waiting[pid]; ch != nil {
			delete(r.waiting, pid)
			ch <- e
		} else if r.keep > 0 {
			r.strays[pid] = e
		}
	}
}

// fork starts a child and returns where its end will be told.
func (r *reaper) fork(start func() (int, error)) (int, <-chan exit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := start()
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan exit, 1)
	r.waiting[pid] = ch
	return pid, ch, nil
}

// kill signals a child that has not been collected yet: its number cannot be anybody else's.
func (r *reaper) kill(pid int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[pid] == nil {
		return unix.ESRCH
	}
	return unix.Kill(pid, sig)
}

// hold keeps the ends of strangers until let go, for processes whose number is learnt late.
func (r *reaper) hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.keep--; r.keep == 0 {
			clear(r.strays)
		}
	}
}

// adopt waits for a process that became our child; the caller holds.
func (r *reaper) adopt(pid int) <-chan exit {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan exit, 1)
	if e, ok := r.strays[pid]; ok {
		delete(r.strays, pid)
		ch <- e
	} else {
		r.waiting[pid] = ch
	}
	return ch
}

// staged is a process on its way to become a container's program.
type staged struct {
	reaper *reaper
	pid    int
	conn   *wire.Conn
	exited <-chan exit
	cgroup string // parked in this one
}

// spawn describes a process to clone.
type spawn struct {
	flags  uintptr // new namespaces
	pidns  int     // descriptor of a process whose process namespace to use, or -1
	cgroup string  // cgroup v2 folder to clone into, or ""
}

// stage clones a process that waits for its plan.
func (g *guard) stage(s spawn) (*staged, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	pid, exited, err := g.fork(s, "stage", theirs)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &staged{reaper: g.reaper, pid: pid, conn: conn, exited: exited}, nil
}

// fork clones this program in another role with one file as its descriptor 3.
func (g *guard) fork(s spawn, role string, file *os.File) (int, <-chan exit, error) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Env:   []string{"GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMAXPROCS=1"},
		Files: []uintptr{null.Fd(), null.Fd(), 2, file.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: s.flags},
	}
	if s.cgroup != "" {
		dir, err := unix.Open(s.cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, nil, err
		}
		defer unix.Close(dir)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	}
	return g.reaper.fork(func() (int, error) {
		if s.pidns < 0 {
			return syscall.ForkExec("/proc/self/exe", []string{"ebb-pod", role}, attr)
		}
		return forkInto(s.pidns, []string{"ebb-pod", role}, attr)
	})
}

// forkInto forks with another process's process namespace for the child. The thread comes back to
// its own namespace, or ends with the goroutine if it cannot.
func forkInto(pidfd int, args []string, attr *syscall.ProcAttr) (int, error) {
	type result struct {
		pid int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- result{err: err}
			return
		}
		defer unix.Close(own)
		if err := unix.Setns(pidfd, unix.CLONE_NEWPID); err != nil {
			runtime.UnlockOSThread()
			done <- result{err: err}
			return
		}
		pid, err := syscall.ForkExec("/proc/self/exe", args, attr)
		if unix.Setns(own, unix.CLONE_NEWPID) == nil {
			runtime.UnlockOSThread()
		}
		done <- result{pid, err}
	}()
	r := <-done
	return r.pid, r.err
}

// join moves a process into cgroups by their cgroup.procs files. The parent writes, after the
// clone: moving the cloning thread itself costs a second grace period in cgroup v1.
func join(files []string, pid int) error {
	value := []byte(itoa(pid))
	for _, f := range files {
		if err := writeFile(f, value); err != nil {
			return err
		}
	}
	return nil
}

package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// slot is the place of one pod: guardian, network, control group, folder. It exists before it is
// given to a pod, so that a start finds it ready.
type slot struct {
	dir     string
	Boot    string // the kernel's boot id: nothing outlives a boot
	Guard   process
	Cgroup  string
	Network *network.Attachment `json:",omitempty"`
}

// first is the control group of the first container.
func (sl *slot) first() string { return sl.Cgroup + "/c0" }

// kindOf says which namespaces a slot has of its own.
type kindOf struct {
	hostNetwork, hostIPC bool
	unstaged             bool // no process is to wait for the first container
}

// slotFor gives a parked slot if one fits, else a new one.
func (r *Runtime) slotFor(ctx context.Context, spec runtime.SandboxSpec) (*slot, error) {
	kind := kindOf{
		hostNetwork: spec.HostNetwork, hostIPC: spec.HostIPC,
		unstaged: spec.HostPID || spec.ShareProcessNamespace || spec.Handler != "",
	}
	if kind == (kindOf{}) && r.parking != nil {
		if sl := r.parking.take(); sl != nil {
			return sl, nil
		}
	}
	return r.makeSlot(ctx, kind)
}

func (r *Runtime) makeSlot(ctx context.Context, kind kindOf) (*slot, error) {
	var id [5]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("naming a sandbox: %w", err)
	}
	name := hex.EncodeToString(id[:])
	sl := &slot{dir: filepath.Join(r.cfg.StateDir, "pods", name), Boot: r.node.boot, Cgroup: r.cfg.CgroupRoot + "/" + name}
	if err := r.build(ctx, sl, kind); err != nil {
		r.demolish(context.WithoutCancel(ctx), sl)
		return nil, err
	}
	return sl, nil
}

// build makes the parts of a slot.
func (r *Runtime) build(ctx context.Context, sl *slot, kind kindOf) error {
	for _, d := range []string{"", "c", "u", "b", "root", "shm"} {
		if err := os.Mkdir(sl.file(d), 0o700); err != nil {
			return fmt.Errorf("making the pod's folder: %w", err)
		}
	}
	group := sl.first()
	if kind.unstaged {
		group = sl.Cgroup
	}
	if err := r.makeGroup(group); err != nil {
		return err
	}
	if r.groups != nil && !kind.unstaged {
		r.work.Go(r.groups.Prime)
	}
	if !kind.hostNetwork && r.cfg.Pods != nil {
		att, err := r.cfg.Pods.Prepare(ctx)
		if err != nil {
			return fmt.Errorf("preparing the pod's network: %w", err)
		}
		sl.Network = att
	}
	if err := r.startGuard(sl, kind); err != nil {
		return fmt.Errorf("starting the pod's guardian: %w", err)
	}
	return writeJSON(sl.file("slot.json"), sl)
}

// startGuard clones the guardian into the pod's namespaces.
func (r *Runtime) startGuard(sl *slot, kind kindOf) error {
	listener, err := listen(sl.dir)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer unix.Close(listener)
	out, err := os.OpenFile(sl.file("guard.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	attr, err := r.guardAttr(sl, kind)
	if err != nil {
		return err
	}
	attr.Files = []uintptr{null.Fd(), null.Fd(), out.Fd(), uintptr(listener)}
	if group := r.groupFolder(r.guards()); group != "" {
		dir, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	}
	pid, err := r.fork(sl, attr)
	if err != nil {
		return err
	}
	if sl.Guard, err = identify(pid); err != nil {
		return err
	}
	go reap(pid)
	r.moveGuard(pid)
	if sl.Network == nil && !kind.hostNetwork {
		return inNetns(sl.Guard.ns("net"), loopbackUp)
	}
	return nil
}

// guardAttr says how the guardian is cloned: its namespaces and what it finds to do at once.
func (r *Runtime) guardAttr(sl *slot, kind kindOf) (*syscall.ProcAttr, error) {
	attr := &syscall.ProcAttr{
		Dir: sl.dir,
		Env: []string{"GOMAXPROCS=2", "GOTRACEBACK=single"},
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS},
	}
	if !kind.unstaged {
		park, err := json.Marshal(wire.Park{Cgroup: sl.first(), Join: r.procs(sl.first()), CgroupFD: r.groupFolder(sl.first())})
		if err != nil {
			return nil, err
		}
		attr.Env = append(attr.Env, wire.ParkEnv+"="+string(park))
	}
	if !kind.hostNetwork {
		attr.Sys.Cloneflags |= unix.CLONE_NEWUTS
		if sl.Network == nil {
			attr.Sys.Cloneflags |= unix.CLONE_NEWNET
		}
	}
	if !kind.hostIPC {
		attr.Sys.Cloneflags |= unix.CLONE_NEWIPC
	}
	return attr, nil
}

// fork clones from a thread that is in the pod's network namespace, if it has one made for it.
func (r *Runtime) fork(sl *slot, attr *syscall.ProcAttr) (pid int, err error) {
	clone := func() error {
		path := "/proc/self/fd/" + strconv.Itoa(int(r.program.Fd()))
		pid, err = syscall.ForkExec(path, []string{"ebb-pod", "guard"}, attr)
		return err
	}
	if sl.Network == nil {
		return pid, clone()
	}
	return pid, inNetns(sl.Network.NetnsPath, clone)
}

// moveTime is how long a guardian stays in our control groups: on version 1 a move stops every fork
// on the node for a grace period of the kernel, which no start should wait for.
const moveTime = 500 * time.Millisecond

// moveGuard has the guardian taken out of our own control groups soon, so that ending our unit does
// not end it. On version 2 it was cloned into its own.
func (r *Runtime) moveGuard(pid int) {
	if r.groups == nil || r.groups.Unified {
		return
	}
	select {
	case r.moves <- pid:
	case <-r.ctx.Done():
	}
}

// moveGuards does that until Close. It sleeps while nobody starts.
func (r *Runtime) moveGuards() {
	for {
		var pid int
		select {
		case <-r.ctx.Done():
			return
		case pid = <-r.moves:
		}
		timer := time.NewTimer(moveTime)
		select {
		case <-r.ctx.Done(): // at once: after us nobody does
			timer.Stop()
		case <-timer.C:
		}
		for more := true; more; {
			r.move(pid)
			select {
			case pid = <-r.moves:
			default:
				more = false
			}
		}
	}
}

func (r *Runtime) move(pid int) {
	for _, f := range r.groups.Tracking(r.guards()) {
		if err := os.WriteFile(f, []byte(strconv.Itoa(pid)), 0); err != nil {
			if !errors.Is(err, unix.ESRCH) {
				r.log.Warn("moving a guardian to its control group", "error", err)
			}
			return
		}
	}
}

func (r *Runtime) groupFolder(path string) string {
	if r.groups == nil {
		return ""
	}
	return r.groups.Folder(path)
}

// demolish takes down a slot that no pod has.
func (r *Runtime) demolish(ctx context.Context, sl *slot) {
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	sl.endGuard(ctx)
	var errs []error
	if r.groups != nil {
		errs = append(errs, r.groups.Kill(ctx, sl.Cgroup), r.groups.Remove(ctx, sl.Cgroup))
	}
	errs = append(errs, r.releaseNetwork(ctx, sl, ""), os.RemoveAll(sl.dir))
	if err := errors.Join(errs...); err != nil {
		r.log.Warn("taking down an unused sandbox", "error", err)
	}
}

// endGuard asks the guardian to end the pod and makes sure that it is gone.
func (sl *slot) endGuard(ctx context.Context) {
	if !sl.alive() {
		return
	}
	if conn, err := sl.dial(); err == nil {
		_ = conn.Send(wire.Request{End: true}) // if it does not hear, it is killed below
		conn.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	sl.Guard.end(ctx)
}

func (sl *slot) alive() bool { return sl.Guard.PID > 0 && sl.Boot == bootID() && sl.Guard.alive() }

// listen makes the guardian's socket. The path goes through a descriptor, because a socket's name
// holds 107 bytes and data folders can be deep.
func listen(dir string) (int, error) {
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(folder)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, address(folder)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Listen(fd, 128); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func address(folder int) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(folder) + "/socket"}
}

func (sl *slot) dial() (*wire.Conn, error) {
	folder, err := unix.Open(sl.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(folder)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, address(folder)); err != nil { // waits only for a full queue
		unix.Close(fd)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("connecting to the pod's guardian: %w: %w", runtime.ErrNotRunning, err)
		}
		return nil, fmt.Errorf("connecting to the pod's guardian: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return wire.New(fd)
}

// ask sends one request and waits for the answer; the guardian sees when we give up.
func (sl *slot) ask(ctx context.Context, req wire.Request, fds ...int) (wire.Reply, error) {
	conn, err := sl.dial()
	if err != nil {
		return wire.Reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.File().SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // a closed file needs no deadline
	defer stop()
	var reply wire.Reply
	if err = conn.Send(req, fds...); err == nil {
		var extra []int
		extra, err = conn.Recv(&reply)
		wire.CloseFDs(extra)
	}
	if err != nil {
		return wire.Reply{}, errors.Join(ctx.Err(), fmt.Errorf("asking the pod's guardian: %w", err))
	}
	return reply, replyError(reply)
}

// replyError turns a refusal into an error of the family.
func replyError(reply wire.Reply) error {
	if reply.Error == "" {
		return nil
	}
	switch reply.Kind {
	case wire.NotFound:
		return fmt.Errorf("%s: %w", reply.Error, runtime.ErrNotFound)
	case wire.NotRunning:
		return fmt.Errorf("%s: %w", reply.Error, runtime.ErrNotRunning)
	}
	return errors.New(reply.Error)
}

// writeJSON replaces a file so that a reader sees the old or the new one.
func writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(name), err)
	}
	return os.Rename(name+".new", name)
}

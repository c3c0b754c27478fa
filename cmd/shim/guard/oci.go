package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/cmd/shim/stage"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// maxComplaint bounds what is read of an OCI runtime's log.
const maxComplaint = 64 << 10

// ociRun is one call of an OCI runtime's program. What it leaves running becomes our child.
type ociRun struct {
	oci   *wire.OCI
	args  []string
	files []*os.File // stdin, stdout, stderr; none is /dev/null
}

// run calls the program and waits for its end; its complaint becomes the error.
func (g *guard) run(r ociRun) error {
	out, err := os.CreateTemp(r.oci.Bundle, "log")
	if err != nil {
		return err
	}
	out.Close()
	log := out.Name()
	defer os.Remove(log)
	args := append([]string{r.oci.Binary, "--root", r.oci.Root, "--log", log, "--log-format", "json"}, r.oci.Flags...)
	args = append(args, r.args...)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	fds := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	for i, f := range r.files {
		fds[i] = f.Fd()
	}
	_, exited, err := g.reaper.fork(func() (int, error) {
		return syscall.ForkExec(r.oci.Binary, args, &syscall.ProcAttr{
			Dir: r.oci.Bundle, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Files: fds, Sys: &syscall.SysProcAttr{Setsid: true},
		})
	})
	if err != nil {
		return fmt.Errorf("calling %s: %w", r.oci.Binary, err)
	}
	if e := <-exited; e.code != 0 {
		return fmt.Errorf("%s %s: %s", r.oci.Binary, r.args[0], complaint(log, e.code))
	}
	return nil
}

// complaint is the last error in an OCI runtime's log.
func complaint(log string, code int) string {
	text := "ended with code " + itoa(code)
	f, err := os.Open(log)
	if err != nil {
		return text
	}
	defer f.Close()
	buf := make([]byte, maxComplaint)
	n, _ := f.Read(buf) // an empty log says nothing
	for line := range bytes.Lines(buf[:n]) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			text = entry.Msg
		}
	}
	return text
}

// launchOCI has an OCI runtime create and start the container. Its mounts are made here, in the
// guardian's own mount namespace: they end with the pod.
func (g *guard) launchOCI(conn *wire.Conn, c *container, files *fileQueue) (<-chan exit, error) {
	release := g.reaper.hold()
	defer release()
	oci := c.start.Container.OCI
	if err := mountBundle(c.start.Stage, oci.Bundle, files); err != nil {
		return nil, err
	}
	if err := g.boot(oci); err != nil {
		return nil, err
	}
	exited, err := g.createOCI(c, oci)
	if err != nil {
		g.deleteOCI(c)
		return nil, err
	}
	return exited, nil
}

// mountBundle puts the root and the sources of mounts where config.json says.
func mountBundle(s wire.Stage, bundle string, files *fileQueue) error {
	if err := stage.MountLayers(s.Root); err != nil {
		return err
	}
	for _, m := range s.Mounts {
		tree, err := files.take()
		if err != nil {
			return err
		}
		err = mountSource(tree, bundle+"/"+m.Target, m.Dir)
		unix.Close(tree)
		if err != nil {
			return fmt.Errorf("mounting a source: %w", err)
		}
	}
	return nil
}

func mountSource(tree int, at string, dir bool) error {
	var err error
	if dir {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// createOCI creates and starts the container.
func (g *guard) createOCI(c *container, oci *wire.OCI) (<-chan exit, error) {
	theirs, err := c.openStdio()
	if err != nil {
		return nil, err
	}
	defer closeAll(theirs)
	create := ociRun{oci: oci, args: []string{"create", "--bundle", oci.Bundle, "--pid-file", oci.Bundle + "/pid"}}
	start := ociRun{oci: oci, args: []string{"start", c.rec.ID}}
	terminal := func() error { return nil }
	if c.start.Stage.Process.Terminal {
		master, stop, err := consoleSocket(oci.Bundle)
		if err != nil {
			return nil, err
		}
		defer stop()
		terminal = func() error { return c.takeTerminal(master) }
		create.args = append(create.args, "--console-socket", "console")
	}
	create.args = append(create.args, c.rec.ID)
	early, late := terminal, func() error { return nil }
	create.files = theirs
	if oci.Kernel != nil { // gVisor's containers get their streams when they start
		early, late = late, early
		create.files, start.files = nil, theirs
	}
	if err := g.run(create); err != nil {
		return nil, err
	}
	if err := early(); err != nil {
		return nil, err
	}
	exited, err := g.startOCI(c, start)
	if err != nil {
		return nil, err
	}
	return exited, late()
}

// takeTerminal receives the container's terminal from the runtime.
func (c *container) takeTerminal(receive func() (int, error)) error {
	fd, err := receive()
	if err != nil {
		return fmt.Errorf("taking the terminal: %w", err)
	}
	c.useTerminal(fd)
	return nil
}

// startOCI starts the created container and follows it to its end.
func (g *guard) startOCI(c *container, start ociRun) (<-chan exit, error) {
	pid, err := readPID(start.oci.Bundle + "/pid")
	if err != nil {
		return nil, err
	}
	var exited <-chan exit
	if start.oci.Kernel == nil {
		exited = g.reaper.adopt(pid)
	}
	if err := g.run(start); err != nil {
		return nil, err
	}
	if start.oci.Kernel != nil {
		if exited, err = g.awaitKernel(c, start.oci); err != nil {
			return nil, err
		}
	}
	c.rec.PID, c.rec.Started = pid, time.Now()
	if c.rec.StartTicks, err = startTicks(pid); err != nil {
		c.rec.StartTicks = 0 // ended already
	}
	return exited, nil
}

// deleteOCI has the runtime forget a container and takes its mounts away.
func (g *guard) deleteOCI(c *container) {
	oci := c.start.Container.OCI
	if err := g.run(ociRun{oci: oci, args: []string{"delete", "--force", c.rec.ID}}); err != nil {
		os.Stderr.WriteString("guard: " + err.Error() + "\n")
	}
	for _, m := range c.start.Stage.Mounts {
		_ = unix.Unmount(oci.Bundle+"/"+m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // it may not have got so far
	}
	_ = unix.Unmount(c.start.Stage.Root.At, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

// execOCI runs a further process by the runtime's exec.
func (g *guard) execOCI(conn *wire.Conn, c *container, e wire.Exec, files *fileQueue) (int, <-chan exit, error) {
	release := g.reaper.hold()
	defer release()
	oci := c.start.Container.OCI
	dir, err := os.MkdirTemp(oci.Bundle, "exec")
	if err != nil {
		return 0, nil, err
	}
	defer os.RemoveAll(dir)
	if err := writeProcess(oci.Bundle+"/config.json", dir+"/process.json", e); err != nil {
		return 0, nil, fmt.Errorf("describing the process: %w", err)
	}
	call := ociRun{oci: oci, args: []string{"exec", "--detach", "--process", dir + "/process.json", "--pid-file", dir + "/pid"}}
	var master func() (int, error)
	if e.Terminal {
		var stop func()
		if master, stop, err = consoleSocket(dir); err != nil {
			return 0, nil, err
		}
		defer stop()
		call.args = append(call.args, "--console-socket", strings.TrimPrefix(dir, oci.Bundle+"/")+"/console")
	} else {
		for range 3 {
			fd, err := files.take()
			if err != nil {
				return 0, nil, err
			}
			f := os.NewFile(uintptr(fd), "stream")
			defer f.Close()
			call.files = append(call.files, f)
		}
	}
	call.args = append(call.args, c.rec.ID)
	if err := g.run(call); err != nil {
		return 0, nil, err
	}
	pid, err := readPID(dir + "/pid")
	if err != nil {
		return 0, nil, err
	}
	exited := g.reaper.adopt(pid)
	var ride []int
	if master != nil {
		fd, err := master()
		if err != nil {
			_ = g.reaper.kill(pid, unix.SIGKILL)
			return 0, nil, fmt.Errorf("taking the terminal: %w", err)
		}
		defer unix.Close(fd)
		ride = []int{fd}
	}
	if err := conn.Send(wire.Reply{Started: true}, ride...); err != nil {
		_ = g.reaper.kill(pid, unix.SIGKILL)
	}
	return pid, exited, nil
}

// writeProcess takes the container's own process from its config and changes what the exec asks.
func writeProcess(config, to string, e wire.Exec) error {
	data, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var spec struct {
		Process map[string]json.RawMessage `json:"process"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	if spec.Process == nil {
		return errors.New("the container has no process")
	}
	args, err := json.Marshal(e.Args)
	if err != nil {
		return err
	}
	spec.Process["args"] = args
	spec.Process["terminal"] = json.RawMessage(strconv.FormatBool(e.Terminal))
	if data, err = json.Marshal(spec.Process); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// consoleSocket listens where an OCI runtime sends a terminal's master to.
func consoleSocket(dir string) (receive func() (int, error), stop func(), err error) {
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(folder)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	name := "/proc/self/fd/" + itoa(folder) + "/console"
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Listen(fd, 1)); err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	stop = func() {
		unix.Close(fd)
		_ = os.Remove(dir + "/console")
	}
	return func() (int, error) { return receiveMaster(fd) }, stop, nil
}

// receiveMaster takes the descriptor; the runtime's call has returned, so it was sent.
func receiveMaster(listener int) (int, error) {
	if err := unix.SetNonblock(listener, true); err != nil {
		return -1, err
	}
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(conn)
	data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(conn, data, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errors.Join(errors.New("no terminal was sent"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("no terminal was sent"), err)
	}
	return fds[0], unix.SetNonblock(fds[0], true)
}

func readPID(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading the process's number: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("reading the process's number: %q is none", data)
	}
	return pid, nil
}

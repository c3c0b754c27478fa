package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// maxStatus bounds what is read of how a container ended.
const maxStatus = 4 << 10

// haltTime bounds the wait for the end of a kernel that lost its containers.
const haltTime = 5 * time.Second

// maxSignal is the highest number of a signal.
const maxSignal = 64

// boot starts the pod's own kernel if the runtime has one for each pod, before the first container.
func (g *guard) boot(oci *wire.OCI) error {
	if oci.Kernel == nil {
		return nil
	}
	g.booting.Lock()
	defer g.booting.Unlock()
	if g.kernel != nil {
		select {
		case <-g.halted: // it was killed, for its memory say, and all containers with it
			g.discardKernel(g.kernel)
			g.kernel = nil
		default:
			return nil
		}
	}
	kernel := *oci
	kernel.Bundle = oci.Kernel.Bundle
	halted, err := g.startKernel(&kernel)
	if err != nil {
		g.discardKernel(&kernel)
		return fmt.Errorf("starting the pod's kernel: %w", err)
	}
	g.kernel, g.halted = &kernel, halted
	return nil
}

func (g *guard) startKernel(kernel *wire.OCI) (halted chan struct{}, err error) {
	if err := copyProgram(kernel.Bundle + "/rootfs/pause"); err != nil {
		return nil, fmt.Errorf("placing its program: %w", err)
	}
	release := g.reaper.hold()
	defer release()
	pidFile := kernel.Bundle + "/pid"
	create := []string{"create", "--bundle", kernel.Bundle, "--pid-file", pidFile, kernel.Kernel.ID}
	if err := g.run(ociRun{oci: kernel, args: create}); err != nil {
		return nil, err
	}
	pid, err := readPID(pidFile)
	if err != nil {
		return nil, err
	}
	halted = make(chan struct{})
	ended := g.reaper.adopt(pid)
	go func() {
		<-ended
		close(halted)
	}()
	return halted, g.run(ociRun{oci: kernel, args: []string{"start", kernel.Kernel.ID}})
}

// halt ends the pod's own kernel.
func (g *guard) halt() {
	g.booting.Lock()
	defer g.booting.Unlock()
	if g.kernel != nil {
		g.discardKernel(g.kernel)
	}
}

func (g *guard) discardKernel(kernel *wire.OCI) {
	if err := g.run(ociRun{oci: kernel, args: []string{"delete", "--force", kernel.Kernel.ID}}); err != nil {
		fmt.Fprintln(os.Stderr, "guard: ending the pod's kernel:", err)
	}
}

// copyProgram writes this program to a file that any user may run.
func copyProgram(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// awaitKernel follows a container in the pod's own kernel to its end. Its process is none of ours, so
// the runtime is asked to wait for it.
func (g *guard) awaitKernel(c *container, oci *wire.OCI) (<-chan exit, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		r.Close()
		return nil, err
	}
	defer null.Close()
	args := append([]string{oci.Binary, "--root", oci.Root}, oci.Flags...)
	_, waited, err := g.reaper.fork(func() (int, error) {
		return syscall.ForkExec(oci.Binary, append(args, "wait", c.rec.ID), &syscall.ProcAttr{
			Dir: oci.Bundle, Files: []uintptr{null.Fd(), w.Fd(), null.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
	})
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("calling %s: %w", oci.Binary, err)
	}
	g.booting.Lock()
	halted := g.halted
	g.booting.Unlock()
	exited := make(chan exit, 1)
	go func() {
		defer r.Close()
		exited <- kernelExit(r, waited, halted)
	}()
	return exited, nil
}

// kernelExit reads how a container ended. One that nobody knows of any more was killed with its kernel,
// whose end then is waited for, so that whoever is told finds it ended.
func kernelExit(from io.Reader, waited <-chan exit, halted <-chan struct{}) exit {
	data, _ := io.ReadAll(io.LimitReader(from, maxStatus)) // an empty answer says enough
	end := <-waited
	var status struct {
		ExitStatus *int `json:"exitStatus"`
	}
	code := 128 + int(unix.SIGKILL)
	if end.code == 0 && json.Unmarshal(data, &status) == nil && status.ExitStatus != nil {
		code = *status.ExitStatus
	}
	if end.code != 0 {
		select {
		case <-halted:
		case <-time.After(haltTime):
		}
	}
	e := exit{code: code, at: time.Now()}
	if n := code - 128; n > 0 && n <= maxSignal {
		e.signal = n
	}
	return e
}

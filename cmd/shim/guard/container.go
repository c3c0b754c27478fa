package guard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// drainTime bounds how long the end of a container waits for output still in its pipes.
const drainTime = 2 * time.Second

// container is one container the guardian started.
//
//	staged ─► running ─► ended (record written, watchers told) ─► forgotten
type container struct {
	start   wire.Start
	reaper  *reaper
	hub     *hub
	log     *criLog // nil when nobody wants logs
	stdin   *input
	outputs []*os.File
	pumps   sync.WaitGroup
	gone    chan struct{} // closed once the end is recorded

	mu  sync.Mutex
	rec wire.Container // as in the state file
}

func (c *container) record() wire.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// kill signals the first process.
func (c *container) kill(sig unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.rec.Finished.IsZero() || c.rec.PID == 0 {
		return errNotRunning
	}
	err := c.reaper.kill(c.rec.PID, sig)
	if errors.Is(err, unix.ESRCH) {
		return errNotRunning
	}
	return err
}

// killAll kills every process in the container's cgroup until none is left, then the first one.
func (c *container) killAll() {
	_ = c.kill(unix.SIGKILL)
	if len(c.start.Join) == 0 {
		return
	}
	for range 100 { // a fork may run ahead of us, but not for ever: each round leaves fewer parents
		data, err := os.ReadFile(c.start.Join[0])
		if err != nil || len(data) == 0 {
			return
		}
		for line := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // the kernel does not tell when a group is empty
	}
}

// pump copies one output of the container to its log and to whoever is attached.
func (c *container) pump(stream int, from *os.File) {
	defer c.pumps.Done()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			c.hub.send(stream, buf[:n])
			c.log.write(stream, buf[:n])
		}
		if err != nil { // EOF, EIO from a terminal, or the deadline
			c.log.finish(stream)
			return
		}
	}
}

// await records the container's end.
func (g *guard) await(c *container, exited <-chan exit) {
	e := <-exited
	if c.start.HostPID || c.start.SharePID {
		g.killAll(c) // without an own process namespace the kernel does not end the rest
	}
	c.drain()
	oom := oomKills(c.start.OOMFile) > 0 && e.code != 0
	if c.start.Container.OCI != nil {
		g.deleteOCI(c)
	}
	c.mu.Lock()
	c.rec.Finished, c.rec.ExitCode, c.rec.Signal, c.rec.OOMKilled = e.at, e.code, e.signal, oom
	rec := c.rec
	c.mu.Unlock()
	if err := saveRecord(rec); err != nil {
		fmt.Fprintln(os.Stderr, "guard: recording the end of", rec.ID+":", err)
	}
	c.hub.end("exit")
	c.stdin.close()
	for _, f := range c.outputs {
		f.Close()
	}
	c.log.close()
	g.tell(rec)
	close(c.gone)
}

// drain lets the pumps read what is left; a process that escaped with the pipe ends the wait by time.
func (c *container) drain() {
	deadline := time.Now().Add(drainTime)
	for _, f := range c.outputs {
		_ = f.SetReadDeadline(deadline)
	}
	c.pumps.Wait()
}

// signal serves the request of that name.
func (g *guard) signal(s wire.Signal) error {
	c, err := g.find(s.ID)
	if err != nil {
		return err
	}
	if !c.record().Finished.IsZero() {
		return errNotRunning
	}
	if s.All {
		g.killAll(c)
		return nil
	}
	return g.terminate(c, unix.Signal(s.Signal))
}

// terminate signals the container's first process.
func (g *guard) terminate(c *container, sig unix.Signal) error {
	if oci := c.start.Container.OCI; oci != nil { // its process may stand for another, in gVisor say
		return g.run(ociRun{oci: oci, args: []string{"kill", c.rec.ID, itoa(int(sig))}})
	}
	return c.kill(sig)
}

// killAll kills every process of the container.
func (g *guard) killAll(c *container) {
	if oci := c.start.Container.OCI; oci != nil && oci.Kernel != nil {
		_ = g.run(ociRun{oci: oci, args: []string{"kill", "--all", c.rec.ID, itoa(int(unix.SIGKILL))}}) // it may have ended
		return
	}
	c.killAll()
}

// forget drops an ended container and its record.
func (g *guard) forget(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.containers[id]
	if c == nil {
		return errNotFound
	}
	if c.record().Finished.IsZero() {
		return errors.New("the container still runs")
	}
	delete(g.containers, id)
	return nil
}

// oomKills reads the kernel's count of processes killed for want of memory.
func oomKills(file string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.Atoi(count)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// input is the writing end of a container's stdin.
type input struct {
	mu   sync.Mutex // guards file against a close while it is used
	file *os.File   // nil when there is none or it was closed
	keep bool       // the terminal's master, closed with the outputs
}

func (i *input) write(p []byte) error {
	i.mu.Lock()
	f := i.file
	i.mu.Unlock()
	if f == nil {
		return io.ErrClosedPipe
	}
	_, err := f.Write(p)
	return err
}

func (i *input) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.file != nil && !i.keep {
		i.file.Close()
	}
	i.file = nil
}

func itoa(n int) string { return strconv.Itoa(n) }

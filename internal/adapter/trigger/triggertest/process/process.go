// Package process runs the servers that triggers are tested with: real programs on loopback ports, in
// a folder of their own, gone when the test ends.
package process

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A Program is what to run.
type Program struct {
	// Path and Args are the command.
	Path string
	Args []string
	// Dir is where it runs.
	Dir string
	// User is who runs it when the test is root's; root when empty.
	User string
	// Ready tells that it serves.
	Ready func(ctx context.Context) error
	// Within is how long it may take until then; half a minute when zero.
	Within time.Duration
}

// A Process is a running Program.
type Process struct {
	program Program
	command *exec.Cmd
	output  bytes.Buffer
	exited  chan struct{}
}

// Find returns the path of the first of these programs there is. Without one the test is skipped; in
// continuous integration (CI is set), where `make test` installs them all, it fails.
func Find(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		if found, _ := filepath.Glob(name); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("none of %v is installed", names)
	}
	t.Skipf("none of %v is installed: make needs", names)
	return ""
}

// Port returns a port nobody listens on, and none of those that connections to elsewhere begin at: tests
// that connect a thousand times would have it before the server does.
func Port(t testing.TB) string {
	t.Helper()
	const lowest, highest, attempts = 15000, 32000, 50
	for range attempts {
		port := strconv.Itoa(lowest + rand.IntN(highest-lowest))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue // it is taken
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatalf("of %d ports none is free", attempts)
	return ""
}

// Dir returns a folder that a user other than the test's may write to.
func Dir(t testing.TB, owner string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if credential := as(t, owner); credential != nil {
		if err := os.Chown(dir, int(credential.Uid), int(credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func as(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	if name == "" || os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("there is no user %s to run the server", name)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func command(t testing.TB, p Program) *exec.Cmd {
	t.Helper()
	c := exec.Command(p.Path, p.Args...)
	c.Dir = p.Dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: as(t, p.User), Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return c
}

// Run runs a program that ends.
func Run(t testing.TB, p Program) {
	t.Helper()
	if out, err := command(t, p).CombinedOutput(); err != nil {
		t.Fatalf("running %s: %v\n%s", p.Path, err, out)
	}
}

// Start runs a program and waits until it serves. It is killed when the test ends.
func Start(t testing.TB, p Program) *Process {
	t.Helper()
	process := &Process{program: p}
	process.Start(t)
	t.Cleanup(process.kill)
	return process
}

// Start runs it again after Stop.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	p.command, p.exited = command(t, p.program), make(chan struct{})
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	if err := p.command.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.program.Path, err)
	}
	go func(c *exec.Cmd, exited chan struct{}) {
		_ = c.Wait()
		close(exited)
	}(p.command, p.exited)
	within := p.program.Within
	if within == 0 {
		within = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		limit, done := context.WithTimeout(ctx, 2*time.Second)
		err := p.program.Ready(limit)
		done()
		if err == nil {
			return
		}
		select {
		case <-p.exited:
			t.Fatalf("%s ended before it was ready:\n%s", p.program.Path, p.output.String())
		case <-ctx.Done():
			t.Fatalf("%s is not ready: %v", p.program.Path, err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// Stop ends it at once, as a crash does.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.kill()
}

func (p *Process) kill() {
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

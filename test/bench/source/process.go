package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// program is a server to run.
type program struct {
	path string
	args []string
	user string // who runs it; root when empty
	// ready tells that it serves.
	ready func(ctx context.Context) error
}

// start runs a program in a folder and waits until it serves; it is killed by Close.
func (s *Servers) start(ctx context.Context, p program) error {
	c, err := command(s.dir, p)
	if err != nil {
		return err
	}
	var words bytes.Buffer
	c.Stdout, c.Stderr = &words, &words
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.path, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(exited)
	}()
	s.later(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		<-exited
	})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		limit, done := context.WithTimeout(ctx, 2*time.Second)
		err := p.ready(limit)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("starting %s: it ended: %s", p.path, words.Bytes())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to serve: %w", p.path, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// command makes the command of a program, in a process group that ends with this process.
func command(dir string, p program) (*exec.Cmd, error) {
	c := exec.Command(p.path, p.args...)
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if p.user == "" {
		return c, nil
	}
	uid, gid, err := ids(p.user)
	if err != nil {
		return nil, err
	}
	c.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return c, nil
}

func ids(name string) (uid, gid uint32, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	id, err1 := strconv.ParseUint(u.Uid, 10, 32)
	group, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(id), uint32(group), errors.Join(err1, err2)
}

// find returns the path of the first of these programs there is; a name may be a pattern.
func find(names ...string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		if found, err := filepath.Glob(name); err == nil && len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("finding a server: none of %v is installed", names)
}

// port returns one nobody listens on.
func port() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// folder makes one for a server, which belongs to whom runs it.
func (s *Servers) folder(name, owner string) (string, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if owner == "" {
		return dir, nil
	}
	uid, gid, err := ids(owner)
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, int(uid), int(gid))
}

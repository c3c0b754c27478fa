package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// drainTime bounds how long a finished exec's output is waited for: a process it left behind may
// hold the pipe open for ever.
const drainTime = 2 * time.Second

// Exec implements runtime.Runtime. The process gets SIGKILL when ctx ends first.
func (r *Runtime) Exec(ctx context.Context, containerID string, e runtime.ExecSpec) (int, error) {
	fail := func(err error) (int, error) {
		return 0, fmt.Errorf("running a command in container %s: %w", containerID, err)
	}
	s, err := r.owner(containerID)
	if err != nil {
		return fail(err)
	}
	if len(e.Args) == 0 {
		return fail(errors.New("no command"))
	}
	conn, err := s.dial()
	if err != nil {
		return fail(errors.Join(runtime.ErrNotRunning, err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	code, err := runExec(ctx, conn, containerID, e)
	if err != nil {
		return fail(errors.Join(ctx.Err(), err))
	}
	return code, nil
}

func runExec(ctx context.Context, conn *wire.Conn, id string, e runtime.ExecSpec) (int, error) {
	io, theirs, err := openExecStreams(e)
	if err != nil {
		return 0, err
	}
	defer io.close()
	fds := make([]int, len(theirs))
	for i, f := range theirs {
		fds[i] = int(f.Fd())
	}
	err = conn.Send(wire.Request{Exec: &wire.Exec{ID: id, Args: e.Args, Terminal: e.Terminal}}, fds...)
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		return 0, err
	}
	got, reply, err := receive(conn)
	if err != nil {
		return 0, err
	}
	if e.Terminal && len(got) == 1 && !reply.Exited {
		io.useTerminal(got[0])
	} else {
		wire.CloseFDs(got)
	}
	io.copy(ctx, e.Streams)
	for !reply.Exited {
		if got, reply, err = receive(conn); err != nil {
			return 0, err
		}
		wire.CloseFDs(got)
	}
	io.drain()
	return reply.ExitCode, nil
}

// receive reads one reply, a refusal being an error.
func receive(conn *wire.Conn) ([]int, wire.Reply, error) {
	var reply wire.Reply
	fds, err := conn.Recv(&reply)
	if err != nil {
		return nil, reply, fmt.Errorf("asking the pod's guardian: %w", err)
	}
	if err := replyError(reply); err != nil {
		wire.CloseFDs(fds)
		return nil, reply, err
	}
	return fds, reply, nil
}

// execStreams are our ends of a command's streams.
type execStreams struct {
	in, out, err *os.File
	terminal     *os.File
	outputs      sync.WaitGroup
}

// openExecStreams makes pipes for a command without a terminal and returns its ends.
func openExecStreams(e runtime.ExecSpec) (*execStreams, []*os.File, error) {
	s := &execStreams{}
	if e.Terminal {
		return s, nil, nil
	}
	var theirs []*os.File
	open := func(wanted, input bool) (*os.File, error) {
		if !wanted {
			f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err == nil {
				theirs = append(theirs, f)
			}
			return nil, err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		if input {
			theirs = append(theirs, r)
			return w, nil
		}
		theirs = append(theirs, w)
		return r, nil
	}
	var err error
	if s.in, err = open(e.In != nil, true); err == nil {
		if s.out, err = open(e.Out != nil, false); err == nil {
			s.err, err = open(e.Err != nil, false)
		}
	}
	if err != nil {
		s.close()
		for _, f := range theirs {
			f.Close()
		}
		return nil, nil, fmt.Errorf("making streams: %w", err)
	}
	for _, f := range theirs {
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil { // programs expect blocking ones
			return nil, nil, fmt.Errorf("making streams: %w", err)
		}
	}
	return s, theirs, nil
}

// useTerminal takes over the terminal's master side.
func (s *execStreams) useTerminal(fd int) {
	if unix.SetNonblock(fd, true) != nil {
		unix.Close(fd)
		return
	}
	s.terminal = os.NewFile(uintptr(fd), "terminal")
}

// copy starts moving data between the command and the caller.
func (s *execStreams) copy(ctx context.Context, with runtime.Streams) {
	pump := func(to io.Writer, from *os.File) {
		if from == nil || to == nil {
			return
		}
		s.outputs.Go(func() { _, _ = io.Copy(to, from) }) // EOF, EIO or a caller who left
	}
	in := s.in
	if s.terminal != nil {
		in = s.terminal
		pump(with.Out, s.terminal)
		go follow(ctx, s.terminal, with.Resize)
	} else {
		pump(with.Out, s.out)
		pump(with.Err, s.err)
	}
	if with.In == nil || in == nil {
		return
	}
	go func() { // not waited for: the caller's reader may never return
		_, _ = io.Copy(in, with.In)
		if in != s.terminal {
			in.Close()
		}
	}()
}

// follow applies the caller's terminal sizes.
func follow(ctx context.Context, terminal *os.File, sizes <-chan runtime.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			raw, err := terminal.SyscallConn()
			if err != nil {
				return
			}
			if raw.Control(func(fd uintptr) {
				_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			}) != nil {
				return
			}
		}
	}
}

// drain waits for the rest of the output.
func (s *execStreams) drain() {
	deadline := time.Now().Add(drainTime)
	for _, f := range []*os.File{s.out, s.err, s.terminal} {
		if f != nil {
			_ = f.SetReadDeadline(deadline) // pipes and terminals can
		}
	}
	s.outputs.Wait()
}

func (s *execStreams) close() {
	for _, f := range []*os.File{s.in, s.out, s.err, s.terminal} {
		if f != nil {
			f.Close()
		}
	}
}

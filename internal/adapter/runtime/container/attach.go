package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// Attach implements runtime.Runtime.
func (r *Runtime) Attach(ctx context.Context, containerID string, with runtime.Streams) error {
	fail := func(err error) error { return fmt.Errorf("attaching to container %s: %w", containerID, err) }
	s, err := r.owner(containerID)
	if err != nil {
		return fail(err)
	}
	conn, err := s.dial()
	if err != nil {
		return fail(errors.Join(runtime.ErrNotRunning, err))
	}
	defer conn.Close()
	if err := conn.Send(wire.Request{Attach: &wire.Attach{ID: containerID, Stdin: with.In != nil}}); err != nil {
		return fail(err)
	}
	fds, _, err := receive(conn)
	wire.CloseFDs(fds)
	if err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	attached, cancel := context.WithCancel(ctx)
	defer cancel()
	if with.In != nil {
		go sendInput(conn, with.In) // not waited for: the caller's reader may never return
	}
	go sendSizes(attached, conn, with.Resize)
	if err := takeOutput(conn, with); err != nil && ctx.Err() == nil {
		return fail(err)
	}
	return nil
}

func sendInput(conn *wire.Conn, in io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 && conn.Send(wire.Frame{Data: buf[:n]}) != nil {
			return
		}
		if err != nil {
			_ = conn.Send(wire.Frame{}) // the end of input; the connection may be closed
			return
		}
	}
}

func sendSizes(ctx context.Context, conn *wire.Conn, sizes <-chan runtime.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok || conn.Send(wire.Frame{Stream: 3, Size: wire.Size(size)}) != nil {
				return
			}
		}
	}
}

func takeOutput(conn *wire.Conn, with runtime.Streams) error {
	for {
		var f wire.Frame
		fds, err := conn.Recv(&f)
		wire.CloseFDs(fds)
		if err != nil {
			return err
		}
		switch {
		case f.End == "exit":
			return nil
		case f.End != "":
			return errors.New(f.End)
		}
		to := with.Out
		if f.Stream == 2 {
			to = with.Err
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(f.Data); err != nil {
			return err
		}
	}
}

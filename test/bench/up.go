package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bars of start-up, seconds.
const (
	barFirstUp = 6
	barNextUp  = 4
)

// startUp measures `up` on an empty folder and on the one it made.
func startUp(ctx context.Context, r *run) ([]result, error) {
	bare, err := r.startBare(ctx, "up-bare")
	if err != nil {
		return nil, err
	}
	if err := bare.stop(); err != nil {
		return nil, err
	}
	limit := fmt.Sprintf("the embedded Kubernetes alone, API ready: %.2f s", bare.ready.Seconds())
	if err := quiet(ctx); err != nil {
		return nil, err
	}
	i, err := r.install("up")
	if err != nil {
		return nil, err
	}
	first, err := i.up(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.down(); err != nil {
		return nil, err
	}
	if err := quiet(ctx); err != nil {
		return nil, err
	}
	next, err := i.up(ctx)
	if err != nil {
		return nil, err
	}
	return []result{
		atMost("up on an empty folder, API and node ready", first.Seconds(), "s", barFirstUp, limit),
		atMost("up on an existing folder", next.Seconds(), "s", barNextUp, limit),
	}, i.down()
}

// bareKubernetes is a process with nothing but the embedded Kubernetes in it.
type bareKubernetes struct {
	cmd   *exec.Cmd
	data  string
	ready time.Duration
}

// startBare starts it and returns when its API is ready.
func (r *run) startBare(ctx context.Context, name string) (*bareKubernetes, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(r.dir, name)
	cmd := exec.CommandContext(ctx, r.bare, data, address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var words strings.Builder
	cmd.Stderr = &words
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the bare Kubernetes: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		return nil, fmt.Errorf("starting the bare Kubernetes: %w: %s", err, words.String())
	}
	return &bareKubernetes{cmd: cmd, data: data, ready: time.Since(began)}, nil
}

func (b *bareKubernetes) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return b.cmd.Wait()
}

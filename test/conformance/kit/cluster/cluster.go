// Package cluster gives suites an ebb of their own.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Cluster is an ebb with a data folder of its own.
type Cluster struct {
	Binary, Data string
	// HTTP and API are addresses on this machine; empty ones are the binary's defaults.
	HTTP, API string
	// Flags are further ones for ebb up.
	Flags []string
}

// Free chooses a free port where an address names none (port 0).
func Free(ctx context.Context, address string) string {
	if !strings.HasSuffix(address, ":0") {
		return address
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return address
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Up starts it in the background.
func (c *Cluster) Up(ctx context.Context) error {
	args := []string{"up", "--detach"}
	if c.HTTP != "" {
		args = append(args, "--http", c.HTTP)
	}
	if c.API != "" {
		args = append(args, "--api", c.API)
	}
	_, err := c.Do(ctx, "", append(args, c.Flags...)...)
	return err
}

// Remove stops it and forgets everything.
func (c *Cluster) Remove(ctx context.Context) error {
	if _, err := c.Do(ctx, "", "down"); err != nil {
		return err
	}
	_, err := c.Do(ctx, "", "reset", "--yes")
	return err
}

// Kubeconfig is the administrator's.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Data, "kubeconfig") }

// Registry is where images are pushed to.
func (c *Cluster) Registry() (string, error) {
	data, err := os.ReadFile(filepath.Join(c.Data, "status.json"))
	if err != nil {
		return "", fmt.Errorf("finding the registry: %w", err)
	}
	var status struct{ Registry string }
	if err := json.Unmarshal(data, &status); err != nil {
		return "", fmt.Errorf("finding the registry: %w", err)
	}
	if status.Registry == "" {
		return "", errors.New("finding the registry: the status names none")
	}
	return status.Registry, nil
}

// Do runs a verb and gives what it printed.
func (c *Cluster) Do(ctx context.Context, stdin string, args ...string) (string, error) {
	args = append([]string{args[0], "--data", c.Data}, args[1:]...)
	cmd := exec.CommandContext(ctx, c.Binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var words strings.Builder
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ebb %s: %w\n%s%s", strings.Join(args, " "), err, out, words.String())
	}
	return string(out), nil
}

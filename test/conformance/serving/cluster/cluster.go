// Package cluster gives the suites an ebb of their own, and the objects and settings they expect.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"ebb.dev/ebb/test/conformance/serving/suite"
)

// SystemNamespace holds the settings; Gateway is the Service that clients come in by.
const (
	SystemNamespace  = "knative-serving"
	Gateway          = "gateway"
	GatewayNamespace = "ebb-system"
)

// A Cluster is an ebb with a data folder of its own.
type Cluster struct {
	Binary, Data string
	// HTTP and API are addresses on this machine; empty ones are the binary's defaults.
	HTTP, API string
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
	_, err := c.do(ctx, "", args...)
	return err
}

// Remove stops it and forgets everything.
func (c *Cluster) Remove(ctx context.Context) error {
	if _, err := c.do(ctx, "", "down"); err != nil {
		return err
	}
	_, err := c.do(ctx, "", "reset", "--yes")
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

// Prepare applies what the suites expect to find.
func (c *Cluster) Prepare(ctx context.Context) error {
	_, err := c.do(ctx, objects, "kubectl", "apply", "-f", "-")
	return err
}

// Set changes settings and returns what puts them back.
func (c *Cluster) Set(ctx context.Context, settings []suite.Setting) (restore func(context.Context) error, err error) {
	before := map[string]map[string]any{}
	changes := map[string]map[string]any{}
	for _, s := range settings {
		if changes[s.Map] == nil {
			if before[s.Map], err = c.read(ctx, s.Map); err != nil {
				return nil, err
			}
			changes[s.Map] = map[string]any{}
		}
		changes[s.Map][s.Key] = s.Value
	}
	for name, data := range changes {
		if err := c.patch(ctx, name, data); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		var errs []error
		for name, data := range changes {
			for key := range data {
				data[key] = before[name][key] // nil, which removes it, if it was not there
			}
			errs = append(errs, c.patch(ctx, name, data))
		}
		return errors.Join(errs...)
	}, nil
}

func (c *Cluster) read(ctx context.Context, name string) (map[string]any, error) {
	out, err := c.do(ctx, "", "kubectl", "get", "configmap", name, "-n", SystemNamespace, "-o", "json")
	if err != nil {
		return nil, err
	}
	var m struct{ Data map[string]any }
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return nil, fmt.Errorf("reading settings %s: %w", name, err)
	}
	return m.Data, nil
}

func (c *Cluster) patch(ctx context.Context, name string, data map[string]any) error {
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fmt.Errorf("changing settings %s: %w", name, err)
	}
	_, err = c.do(ctx, "", "kubectl", "patch", "configmap", name, "-n", SystemNamespace, "--type=merge", "-p", string(patch))
	return err
}

// do runs a verb and gives what it printed.
func (c *Cluster) do(ctx context.Context, stdin string, args ...string) (string, error) {
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

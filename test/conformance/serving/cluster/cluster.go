// Package cluster gives the suites an ebb of their own, and the objects and settings they expect.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"ebb.dev/ebb/test/conformance/kit/cluster"
	"ebb.dev/ebb/test/conformance/serving/suite"
)

// SystemNamespace holds the settings; Gateway is the Service that clients come in by.
const (
	SystemNamespace  = "knative-serving"
	Gateway          = "gateway"
	GatewayNamespace = "ebb-system"
)

// A Cluster is an ebb for the suites.
type Cluster struct{ cluster.Cluster }

// Prepare applies what the suites expect to find.
func (c *Cluster) Prepare(ctx context.Context) error {
	_, err := c.Do(ctx, objects, "kubectl", "apply", "-f", "-")
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
	out, err := c.Do(ctx, "", "kubectl", "get", "configmap", name, "-n", SystemNamespace, "-o", "json")
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
	_, err = c.Do(ctx, "", "kubectl", "patch", "configmap", name, "-n", SystemNamespace, "--type=merge", "-p", string(patch))
	return err
}

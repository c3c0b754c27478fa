package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"ebb.dev/ebb/test/conformance/keda/image"
	"ebb.dev/ebb/test/conformance/kit/cluster"
	"ebb.dev/ebb/test/conformance/kit/conduct"
	kit "ebb.dev/ebb/test/conformance/kit/image"
)

// run runs the selected packages from the first build to the last clean-up.
func run(ctx context.Context, o conduct.Options, groups string) (_ []conduct.Result, err error) {
	chosen, err := selected(groups, o.Run)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, p := range packages() {
		known = append(known, p.path)
	}
	c, err := conduct.Begin(ctx, o, "ebb-keda", known)
	if err != nil {
		return nil, err
	}
	defer c.End()
	r := &runner{Conduct: c}
	if r.programs, err = c.Programs("keda"); err != nil {
		return nil, err
	}
	if err := r.build(ctx, chosen); err != nil {
		return nil, err
	}
	flags, err := settings(c.Dir, os.TempDir())
	if err != nil {
		return nil, err
	}
	var stop func() error
	if r.cluster, stop, err = c.Cluster(ctx, c.Dir, flags...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := r.furnish(ctx, chosen); err != nil {
		return nil, err
	}
	err = r.packages(ctx, chosen)
	results, unwritten := c.Results()
	return results, errors.Join(err, unwritten)
}

// runner is one conduct under way.
type runner struct {
	*conduct.Conduct

	programs string            // folder of what is built
	sources  map[string]string // folders of packages
	cluster  *cluster.Cluster
	env      []string
}

// program is where a package's tests are built.
func (r *runner) program(p *suitePackage) string {
	return filepath.Join(r.programs, path.Base(p.path)+".test")
}

// build compiles the packages all at once, which is much quicker than one after the other.
func (r *runner) build(ctx context.Context, chosen []suitePackage) error {
	r.sources = map[string]string{}
	var all []string
	for i := range chosen {
		all = append(all, source+chosen[i].path)
	}
	out, err := goCommand(ctx, append([]string{"list", "-tags=e2e", "-f", "{{.ImportPath}} {{.Dir}}"}, all...)...).Output()
	if err != nil {
		return fmt.Errorf("finding packages: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		imported, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		r.sources[strings.TrimPrefix(imported, source)] = dir
	}
	if out, err := goCommand(ctx, append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-tags=e2e", "-o", r.programs + "/"}, all...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("building packages: %w\n%s", err, out)
	}
	return nil
}

// goCommand runs in this module, whose go.mod says which KEDA it is.
func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	return cmd
}

// furnish pushes images, applies objects and makes the environment of the tests: kubectl is ebb's, helm
// our stand-in.
func (r *runner) furnish(ctx context.Context, chosen []suitePackage) error {
	registry, err := r.cluster.Registry()
	if err != nil {
		return err
	}
	paths := make([]string, 0, len(chosen))
	for i := range chosen {
		paths = append(paths, chosen[i].path)
	}
	if err := image.Push(ctx, filepath.Join(r.programs, "stand"), registry, paths); err != nil {
		return err
	}
	if _, err := r.cluster.Do(ctx, objects, "kubectl", "apply", "-f", "-"); err != nil {
		return err
	}
	bin := filepath.Join(r.Dir, "bin")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return fmt.Errorf("making kubectl: %w", err)
	}
	kubectl := fmt.Sprintf("#!/bin/sh\nexec %q kubectl --data %q \"$@\"\n", r.Ebb, r.cluster.Data)
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(kubectl), 0o600); err != nil {
		return fmt.Errorf("making kubectl: %w", err)
	}
	if err := os.Chmod(filepath.Join(bin, "kubectl"), 0o700); err != nil {
		return fmt.Errorf("making kubectl: %w", err)
	}
	if err := kit.Build(ctx, filepath.Join(bin, "helm"), "./helm"); err != nil {
		return err
	}
	r.env = conduct.Environment("PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+r.cluster.Kubeconfig(), "E2E_INSTALL_KEDA=false")
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--absolute-git-dir").Output(); err == nil {
		r.env = append(r.env, "GIT_DIR="+strings.TrimSpace(string(out))) // a test asks what commit it is that is tested
	}
	return nil
}

// packages runs those first that can run side by side.
func (r *runner) packages(ctx context.Context, chosen []suitePackage) error {
	var together, alone []conduct.Test
	for i := range chosen {
		p := &chosen[i]
		t := conduct.Test{
			Name: p.path, Group: p.group, Exempt: p.exempt,
			Program: r.program(p), Dir: r.sources[p.path], Env: r.env,
		}
		if p.alone {
			alone = append(alone, t)
		} else {
			together = append(together, t)
		}
	}
	if err := r.Test(ctx, r.Jobs, together...); err != nil {
		return err
	}
	return r.Test(ctx, 1, alone...)
}

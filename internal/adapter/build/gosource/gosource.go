// Package gosource builds Go source into images: one static program on an empty base.
//
// Two kinds of folder are built. A main package is built as it is, and listens on $PORT. A package
// that offers a function, Handle(w, r) or New() returning something with that method, gets a main
// around it (see server.go.tmpl), as Knative's func does, without a line in the user's folder.
package gosource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ebb.dev/ebb/internal/adapter/build"
	"ebb.dev/ebb/internal/platform/image"
)

// Builder builds with the Go toolchain of this machine.
type Builder struct {
	// Toolchain is the go command; "" looks for go on PATH.
	Toolchain string
}

var _ build.Builder = (*Builder)(nil)

// Name is "go".
func (b *Builder) Name() string { return "go" }

// Detect says whether the folder is a Go program or function.
func (b *Builder) Detect(dir string) error {
	_, err := inspect(dir)
	return err
}

// Build compiles the folder and wraps the program in layers.
func (b *Builder) Build(ctx context.Context, r build.Request) (build.Result, error) {
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return build.Result{}, fmt.Errorf("building %s: %w", r.Dir, err)
	}
	out, err := b.build(ctx, dir, r)
	if err != nil {
		return build.Result{}, fmt.Errorf("building %s: %w", r.Dir, err)
	}
	return out, nil
}

func (b *Builder) build(ctx context.Context, dir string, r build.Request) (build.Result, error) {
	src, err := inspect(dir)
	if err != nil {
		return build.Result{}, err
	}
	command, err := b.toolchain()
	if err != nil {
		return build.Result{}, err
	}
	work, err := os.MkdirTemp("", "ebb-build-*")
	if err != nil {
		return build.Result{}, err
	}
	defer os.RemoveAll(work)
	platforms := r.Platforms
	if len(platforms) == 0 {
		platforms = []v1.Platform{image.Platform()}
	}
	c := compiler{command: command, work: work, src: src, progress: r.Progress}
	if err := c.prepare(ctx); err != nil {
		return build.Result{}, err
	}
	base, err := baseLayers()
	if err != nil {
		return build.Result{}, err
	}
	name := programName(r.Name, dir)
	images := make([]platformImage, 0, len(platforms))
	for _, platform := range platforms {
		program, err := c.compile(ctx, platform)
		if err != nil {
			return build.Result{}, err
		}
		img, err := assemble(base, program, name, platform)
		if err != nil {
			return build.Result{}, fmt.Errorf("making image for %s: %w", platform.String(), err)
		}
		images = append(images, platformImage{img, platform})
	}
	if len(images) == 1 {
		return build.Result{Image: images[0].Image}, nil
	}
	return build.Result{Image: images[0].Image, Index: joinImages(images)}, nil
}

// toolchain finds the go command.
func (b *Builder) toolchain() (string, error) {
	command := b.Toolchain
	if command == "" {
		command = "go"
	}
	path, err := exec.LookPath(command)
	if errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("%w: %w", build.ErrNoToolchain, err)
	}
	if err != nil {
		return "", fmt.Errorf("%w: Go source is compiled with the go command, and %q is not here; install Go from https://go.dev/dl and have it on PATH",
			build.ErrNoToolchain, command)
	}
	return path, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9._-]+`)

// programName makes a file name for the program.
func programName(name, dir string) string {
	if name == "" {
		name = filepath.Base(dir)
	}
	name = strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-._")
	if name == "" {
		return "app"
	}
	return name
}

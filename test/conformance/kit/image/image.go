// Package image makes images of files and pushes them to a registry, without Docker.
package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// An Image is files and how they are run.
type Image struct {
	Entrypoint []string // empty: what the pod says
	User       string
	Folder     string   // working directory; / if empty
	Env        []string // besides PATH
	Path       string   // further folders for PATH, with a colon before each
	Base       v1.Layer // that other images have, too; may be nil
	Files      Files
}

// Push makes the image and pushes it under a name with registry and tag.
func (i *Image) Push(ctx context.Context, reference string) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fmt.Errorf("pushing image %s: %w", reference, err)
	}
	made, err := i.make()
	if err != nil {
		return fmt.Errorf("pushing image %s: %w", reference, err)
	}
	if err := remote.Write(ref, made, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("pushing image %s: %w", reference, err)
	}
	return nil
}

// make has a layer of the files, and the base.
func (i *Image) make() (v1.Image, error) {
	layer, err := i.Files.Layer()
	if err != nil {
		return nil, err
	}
	layers := []v1.Layer{layer}
	if i.Base != nil {
		layers = []v1.Layer{i.Base, layer}
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: i.Entrypoint, User: i.User, WorkingDir: i.Folder,
		Env: append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" + i.Path}, i.Env...),
	}
	if config.Config.WorkingDir == "" {
		config.Config.WorkingDir = "/"
	}
	return mutate.ConfigFile(image, config)
}

// Build compiles packages of the module in the working directory into a folder (which ends in /) or to a file.
func Build(ctx context.Context, to string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-ldflags=-s -w", "-o", to}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building programs of images: %w\n%s", err, out)
	}
	return nil
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/adapter/runtime/container/unpack"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/image"
)

// parked is how many sandboxes wait for a pod.
const parked = 4

// startRuntime takes over what still runs from before and opens the image store.
func (s *Server) startRuntime(ctx context.Context) error {
	pods, err := network.New(s.net, s.id.PodCIDR(), podNetwork(s.folder))
	if err != nil {
		return err
	}
	store, err := unpack.New(s.folder.Images(), s.images, s.log.With("part", "images"))
	if err != nil {
		return err
	}
	s.unpacked.Store(store)
	c := containerConfig(s.folder, s.id)
	c.Pods, c.Park, c.Log = pods, parked, s.log.With("part", "runtime")
	s.runtime, err = container.New(ctx, c)
	if err != nil {
		return err
	}
	s.limit(s.runtime.Limits()...)
	s.onStop("runtime", func(ctx context.Context) error {
		return errors.Join(s.runtime.Close(), cleanRuntime(ctx, s.folder, s.id))
	})
	return nil
}

func containerConfig(folder config.Folder, id config.Identity) container.Config {
	return container.Config{StateDir: folder.Runtime(), CgroupRoot: id.Name()}
}

// cleanRuntime removes every process, mount and cgroup of a killed ebb.
func cleanRuntime(ctx context.Context, folder config.Folder, id config.Identity) error {
	return container.CleanUp(ctx, containerConfig(folder, id))
}

// mirror is the registry of the ebb that runs on a data folder.
func mirror(folder config.Folder) (image.Mirror, error) {
	status, err := ReadStatus(folder)
	if err != nil {
		return image.Mirror{}, err
	}
	if status.Registry == "" {
		return image.Mirror{}, fmt.Errorf("ebb is %s on %s, so there is no registry: start it with `ebb up`", status.State, folder)
	}
	return image.Mirror{Address: status.Registry}, nil
}

// LoadImage reads an image archive into the registry of a running ebb and tells what is in it now.
func LoadImage(ctx context.Context, folder config.Folder, from io.Reader, reference string) ([]string, error) {
	m, err := mirror(folder)
	if err != nil {
		return nil, err
	}
	loaded, err := m.Load(ctx, from, reference)
	if err != nil {
		return nil, fmt.Errorf("loading image: %w", err)
	}
	out := make([]string, len(loaded))
	for i, l := range loaded {
		out[i] = l.Reference + "  " + l.Digest
	}
	return out, nil
}

// ListImages tells what the registry of a running ebb holds.
func ListImages(ctx context.Context, folder config.Folder) ([]string, error) {
	m, err := mirror(folder)
	if err != nil {
		return nil, err
	}
	listed, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(listed))
	for i, l := range listed {
		out[i] = fmt.Sprintf("%s  %s  %s  %.1f MB", l.Reference, l.Digest, strings.Join(l.Platforms, ","), float64(l.SizeBytes)/1e6)
	}
	return out, nil
}

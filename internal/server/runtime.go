package server

import (
	"context"
	"errors"

	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/adapter/runtime/container/unpack"
	"ebb.dev/ebb/internal/platform/config"
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

package node

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/garbage"
	"ebb.dev/ebb/internal/component/node/pod"
)

// collectImages puts a collector between the pods and their images.
func (n *Node) collectImages() {
	c := n.config
	if c.Leases == nil || c.ImagesDir == "" {
		return
	}
	n.garbage = garbage.New(garbage.Config{
		Images: c.Images, Store: c.Leases, InUse: n.imagesInUse, Log: c.Log,
		Usage: func() (float64, error) { return usage(c.ImagesDir) },
	})
	n.host.Images, n.host.Leases = n.garbage, n.garbage
}

// collect runs the collector, if there is one, until ctx ends.
func (n *Node) collect(ctx context.Context) error {
	if n.garbage == nil {
		return nil
	}
	return n.garbage.Run(ctx)
}

// usage is how much of a folder's disk is in use by what others than root may use, as df shows it.
func usage(dir string) (float64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("measuring the disk of %s: %w", dir, err)
	}
	used := disk.Blocks - disk.Bfree
	if used+disk.Bavail == 0 {
		return 0, nil // a file system without blocks does not fill up
	}
	return float64(used) / float64(used+disk.Bavail), nil
}

// imagesInUse are the digests of what pods run on or are about to.
func (n *Node) imagesInUse(ctx context.Context) ([]string, error) {
	var out []string
	for _, m := range n.all() {
		digests, err := m.Images(ctx)
		if err != nil && !errors.Is(err, runtime.ErrNotFound) { // else the pod has just gone
			return nil, fmt.Errorf("asking pods for their images: %w", err)
		}
		out = append(out, digests...)
	}
	return out, nil
}

// sweepLeases releases the images of pods that went while no node ran.
func (n *Node) sweepLeases() {
	if n.config.Leases == nil {
		return
	}
	for _, owner := range n.config.Leases.Owners() {
		uid, ok := pod.LeasedBy(owner)
		if !ok || n.machine(uid) != nil {
			continue
		}
		if err := n.config.Leases.Release(owner); err != nil {
			n.config.Log.Warn("giving up a left-over image", "owner", owner, "error", err)
		}
	}
}

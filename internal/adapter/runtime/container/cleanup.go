package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"ebb.dev/ebb/internal/adapter/runtime/container/cgroup"
)

// CleanUp ends every pod a Runtime with this configuration left behind and removes processes,
// control groups and folders; mounts end with the processes. Networks are removed when Pods is
// given. It needs no running Runtime and must not race with one. Logs stay.
func CleanUp(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	groups, err := cgroup.Detect()
	if err != nil && !errors.Is(err, cgroup.ErrNone) {
		return err
	}
	r := &Runtime{cfg: cfg, log: cfg.Log, groups: groups, node: node{boot: bootID()}, queue: newExitQueue()}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	defer r.queue.close()
	entries, err := os.ReadDir(filepath.Join(cfg.StateDir, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the pods left: %w", err)
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(cfg.StateDir, "pods", e.Name())
		s, err := r.readSlot(dir)
		if err != nil {
			r.demolish(ctx, r.leftover(dir, s))
			continue
		}
		errs = append(errs, r.tearDown(ctx, s))
	}
	if groups != nil && cfg.CgroupRoot != "" {
		errs = append(errs, groups.Kill(ctx, cfg.CgroupRoot), groups.Remove(ctx, cfg.CgroupRoot))
	}
	errs = append(errs, os.RemoveAll(filepath.Join(cfg.StateDir, "pods")))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cleaning up pods: %w", err)
	}
	return nil
}

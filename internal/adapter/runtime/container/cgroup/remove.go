package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pollTime is how often removal looks again: the kernel has no event for "the last one is gone".
const pollTime = 2 * time.Millisecond

// Processes lists a path's processes and those below it.
func (t *Tree) Processes(path string) ([]int, error) {
	var pids []int
	for _, dir := range t.everywhere(path) {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.IsDir() {
				return err
			}
			data, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
			if err != nil {
				return nil //nolint:nilerr // it went away
			}
			for line := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("listing processes of %s: %w", path, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Kill kills everything in a path and below and returns when nothing is left, or with ctx.
func (t *Tree) Kill(ctx context.Context, path string) error {
	if err := t.Thaw(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		pids, err := t.Processes(path)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already is fine
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("killing what is in %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// Remove removes a path and those below it; it must be empty of processes or become so before ctx
// ends. A path that is not there is no error.
func (t *Tree) Remove(ctx context.Context, path string) error {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for _, dir := range t.everywhere(path) {
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("removing control group %s: %w", path, err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("removing control group %s: %w: %w", path, ctx.Err(), err)
			case <-tick.C:
			}
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// Children names the paths directly below one.
func (t *Tree) Children(path string) []string {
	var names []string
	for _, dir := range t.everywhere(path) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Freeze stops every process of a path until Thaw.
func (t *Tree) Freeze(path string) error { return t.setFrozen(path, "1", "FROZEN") }

// Thaw lets a frozen path run again.
func (t *Tree) Thaw(path string) error { return t.setFrozen(path, "0", "THAWED") }

func (t *Tree) setFrozen(path, v2, v1 string) error {
	if t.Unified {
		return write(t.Folder(path), "cgroup.freeze", v2)
	}
	mount := t.v1("freezer")
	if mount == "" {
		return fmt.Errorf("freezing %s: the node has no freezer: %w", path, errors.ErrUnsupported)
	}
	return write(filepath.Join(mount, path), "freezer.state", v1)
}

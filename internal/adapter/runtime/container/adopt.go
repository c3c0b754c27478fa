package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// lostCode is told for containers whose end nobody saw: killed, as far as anyone can say.
const lostCode = 128 + 9

// adopt finds what a former process left: running pods are taken over, ended ones told, the rest
// is taken down.
func (r *Runtime) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(r.cfg.StateDir, "pods"))
	if err != nil {
		return fmt.Errorf("reading the pods left: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(r.cfg.StateDir, "pods", e.Name())
		s, err := r.readSlot(dir)
		if err != nil {
			r.log.Info("taking down what is left of an unfinished sandbox", "folder", e.Name(), "reason", err)
			r.demolish(ctx, r.leftover(dir, s))
			continue
		}
		r.takeOver(ctx, s)
	}
	r.killStrays(ctx)
	return nil
}

// leftover is a slot to take down, with as much as is known of it.
func (r *Runtime) leftover(dir string, s *sandbox) *slot {
	if s != nil && s.slot != nil {
		return s.slot
	}
	return &slot{dir: dir, Boot: r.node.boot, Cgroup: r.cfg.CgroupRoot + "/" + filepath.Base(dir)}
}

// readSlot reads a folder; with an error the sandbox has what could be read, or is nil.
func (r *Runtime) readSlot(dir string) (*sandbox, error) {
	sl := &slot{}
	if err := readJSON(filepath.Join(dir, "slot.json"), sl); err != nil {
		return nil, err
	}
	sl.dir = dir
	s := &sandbox{slot: sl, runtime: r, containers: map[string]*entry{}}
	var rec sandboxRecord
	if err := readJSON(sl.file("sandbox.json"), &rec); err != nil {
		return s, err
	}
	s.spec, s.created, s.pause = rec.Spec, rec.Created, rec.Pause
	return s, s.readContainers()
}

func (s *sandbox) readContainers() error {
	files, err := filepath.Glob(s.file("c", "*.json"))
	if err != nil {
		return err
	}
	for _, f := range files {
		var rec wire.Container
		if err := readJSON(f, &rec); err != nil {
			s.runtime.log.Warn("reading a container's state", "file", f, "error", err)
			continue
		}
		_, err := os.Stat(strings.TrimSuffix(f, ".json") + ".told")
		s.containers[rec.ID] = &entry{rec: rec, told: err == nil}
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(rec.Cgroup), "c")); err == nil {
			s.groups = max(s.groups, n+1)
		}
	}
	return nil
}

// takeOver makes a sandbox ours. One whose guardian is gone stays listed, all ended, until the
// node stops it.
func (r *Runtime) takeOver(ctx context.Context, s *sandbox) {
	if r.cfg.Pods != nil {
		if att, ok := r.cfg.Pods.Lookup(s.spec.ID); ok {
			s.Network, s.ip = att, att.IP
		}
	}
	s.up = true
	r.mu.Lock()
	r.sandboxes[s.spec.ID] = s
	for id := range s.containers {
		r.owners[id] = s
	}
	r.mu.Unlock()
	for _, e := range s.containers {
		if !e.rec.Finished.IsZero() && !e.told {
			s.ended(e.rec)
		}
	}
	if !s.alive() {
		s.bury(ctx)
		return
	}
	if err := r.watchOver(s); err != nil {
		r.log.Warn("watching an adopted pod", "namespace", s.spec.Namespace, "pod", s.spec.Name, "error", err)
		s.bury(ctx)
	}
}

// bury ends a sandbox whose guardian is gone: what still runs is killed and told as killed.
func (s *sandbox) bury(ctx context.Context) {
	if g := s.runtime.groups; g != nil && s.Boot == s.runtime.node.boot {
		ctx, cancel := context.WithTimeout(ctx, endTime)
		defer cancel()
		if err := g.Kill(ctx, s.Cgroup); err != nil {
			s.runtime.log.Warn("killing an orphaned pod", "pod", s.spec.Name, "error", err)
		}
	}
	s.buryAll()
}

// buryAll tells every container that is not known to have ended as killed.
func (s *sandbox) buryAll() {
	s.mu.Lock()
	var lost []wire.Container
	for _, e := range s.containers {
		if e.rec.PID > 0 && e.rec.Finished.IsZero() {
			lost = append(lost, e.rec)
		}
	}
	s.mu.Unlock()
	for _, rec := range lost {
		var last wire.Container // the guardian may have written the end and not said so
		if readJSON(s.file("c", rec.ID+".json"), &last) == nil && !last.Finished.IsZero() {
			rec = last
		} else {
			rec.Finished, rec.ExitCode, rec.Signal = time.Now(), lostCode, 9
			if err := writeJSON(s.file("c", rec.ID+".json"), rec); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.runtime.log.Warn("recording a container's end", "container", rec.ID, "error", err)
			}
		}
		s.ended(rec)
	}
}

// killStrays removes control groups, and guardians in them, that no slot accounts for.
func (r *Runtime) killStrays(ctx context.Context) {
	if r.groups == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	known := map[string]bool{"guards": true}
	guards := map[int]bool{}
	r.mu.Lock()
	for _, s := range r.sandboxes {
		known[filepath.Base(s.Cgroup)] = true
		guards[s.Guard.PID] = true
	}
	r.mu.Unlock()
	for _, name := range r.groups.Children(r.cfg.CgroupRoot) {
		if known[name] {
			continue
		}
		path := r.cfg.CgroupRoot + "/" + name
		if err := errors.Join(r.groups.Kill(ctx, path), r.groups.Remove(ctx, path)); err != nil {
			r.log.Warn("removing a stray control group", "name", name, "error", err)
		}
	}
	pids, err := r.groups.Processes(r.guards())
	if err != nil {
		r.log.Warn("looking for stray guardians", "error", err)
	}
	for _, pid := range pids {
		_, parent, _, err := stat(pid)
		if err == nil && !guards[pid] && !guards[parent] {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func readJSON(name string, v any) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(name), err)
	}
	return nil
}

// Package cgroup makes, limits, measures and removes control groups, version 1 and 2 alike.
//
// Paths are relative to each hierarchy's root ("ebb-a1b2c3/x/c0"). On version 1 a path is a folder
// in every hierarchy the node has; on version 2 in the only one.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wanted are the version 1 controllers we use, and "name=systemd", so that stopping ebb's unit does
// not stop the pods. Each further one costs every start a move.
var wanted = []string{"cpu", "cpuacct", "memory", "pids", "devices", "freezer", systemd}

// systemd names the hierarchy by which a service manager on version 1 keeps its units.
const systemd = "name=systemd"

// Hybrid names a version 2 hierarchy mounted beside version 1 ones. Its controllers are not used,
// but processes join it, because the node's service manager may go by it.
const Hybrid = "unified"

// ErrNone means that the node has no control groups we can use.
var ErrNone = errors.New("no control groups are mounted")

// Hierarchy is one mounted tree of version 1.
type Hierarchy struct {
	Names []string // of its controllers
	Mount string
}

// Tree is the node's control groups.
type Tree struct {
	Unified bool        // version 2
	V1      []Hierarchy // empty with Unified
	others  []string    // version 1 mounts we do not use, but OCI runtimes do
	root    string      // of version 2
	lost    []string    // controllers that could not be had
}

// Detect finds what is mounted.
func Detect() (*Tree, error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return &Tree{Unified: true, root: "/sys/fs/cgroup"}, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("finding control groups: %w", err)
	}
	defer f.Close()
	t := &Tree{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		h, ok := parseMount(lines.Text())
		switch {
		case !ok || t.has(h.Names):
		case len(h.Names) == 0:
			t.others = append(t.others, h.Mount)
		default:
			t.V1 = append(t.V1, h)
		}
	}
	if !slices.ContainsFunc(t.V1, func(h Hierarchy) bool { return !slices.Contains(h.Names, Hybrid) }) {
		return nil, ErrNone
	}
	for _, name := range []string{"cpu", "memory", "pids", "devices"} {
		if t.v1(name) == "" {
			t.lost = append(t.lost, name)
		}
	}
	return t, nil
}

func (t *Tree) has(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return t.v1(n) != "" })
}

// parseMount reads one line of mountinfo. A hierarchy with no controller we use has no names.
func parseMount(line string) (Hierarchy, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, super := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 5 || len(super) < 3 {
		return Hierarchy{}, false
	}
	h := Hierarchy{Mount: fields[4]}
	switch super[0] {
	case "cgroup2":
		h.Names = []string{Hybrid}
		return h, true
	case "cgroup":
	default:
		return Hierarchy{}, false
	}
	for o := range strings.SplitSeq(super[2], ",") {
		if slices.Contains(wanted, o) {
			h.Names = append(h.Names, o)
		}
	}
	return h, true
}

// v1 is the mount point of a controller's hierarchy, or "".
func (t *Tree) v1(name string) string {
	for _, h := range t.V1 {
		if slices.Contains(h.Names, name) {
			return h.Mount
		}
	}
	return ""
}

// Lost tells which controllers we wanted and the node does not give.
func (t *Tree) Lost() []string { return t.lost }

// folders are a path's places in all hierarchies.
func (t *Tree) folders(path string) []string {
	if t.Unified {
		return []string{filepath.Join(t.root, path)}
	}
	dirs := make([]string, len(t.V1))
	for i, h := range t.V1 {
		dirs[i] = filepath.Join(h.Mount, path)
	}
	return dirs
}

// everywhere are the places in hierarchies we do not use, too.
func (t *Tree) everywhere(path string) []string {
	dirs := t.folders(path)
	for _, mount := range t.others {
		dirs = append(dirs, filepath.Join(mount, path))
	}
	return dirs
}

// Procs are the files a process's number is written to.
func (t *Tree) Procs(path string) []string {
	files := t.folders(path)
	for i := range files {
		files[i] += "/cgroup.procs"
	}
	return files
}

// Tracking are the cgroup.procs files that matter for who is accounted and ended with whom: those of
// service managers and of memory.
func (t *Tree) Tracking(path string) []string {
	if t.Unified {
		return t.Procs(path)
	}
	var files []string
	for _, h := range t.V1 {
		if slices.Contains(h.Names, systemd) || slices.Contains(h.Names, Hybrid) || slices.Contains(h.Names, "memory") {
			files = append(files, filepath.Join(h.Mount, path, "cgroup.procs"))
		}
	}
	return files
}

// Prime makes a move that follows soon cheap. On version 1 the first one after a quiet time waits
// for a grace period of the kernel, those in the next few milliseconds do not; so we move ourselves
// to where we are while there is other work to do. It returns when the wait is over.
func (t *Tree) Prime() {
	if t.Unified {
		return
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if mount := t.v1("freezer"); len(f) == 3 && f[1] == "freezer" && mount != "" {
			_ = write(filepath.Join(mount, f[2]), "cgroup.procs", strconv.Itoa(os.Getpid())) // it only saves time
			return
		}
	}
}

// Folder is a path's place on version 2, to be cloned into; "" on version 1.
func (t *Tree) Folder(path string) string {
	if !t.Unified {
		return ""
	}
	return filepath.Join(t.root, path)
}

// OOMFile is a file with a line "oom_kill N".
func (t *Tree) OOMFile(path string) string {
	if t.Unified {
		return filepath.Join(t.root, path, "memory.events")
	}
	if m := t.v1("memory"); m != "" {
		return filepath.Join(m, path, "memory.oom_control")
	}
	return ""
}

// Make makes a path and those above it. On version 2 inner ones pass their controllers on.
func (t *Tree) Make(path string) error {
	if t.Unified {
		return t.makeUnified(path)
	}
	for _, h := range t.V1 {
		if err := makeV1(h, path); err != nil {
			return fmt.Errorf("making control group %s: %w", path, err)
		}
	}
	return nil
}

func makeV1(h Hierarchy, path string) error {
	dir := h.Mount
	for part := range strings.SplitSeq(path, "/") {
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the kernel's folders are for everybody to read
			return err
		}
	}
	return nil
}

func (t *Tree) makeUnified(path string) error {
	dir := t.root
	for part := range strings.SplitSeq(path, "/") {
		t.passOn(dir)
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the kernel's folders are for everybody to read
			return fmt.Errorf("making control group %s: %w", path, err)
		}
	}
	return nil
}

// passOn lets a folder's children be limited; what it does not have, they cannot either.
func (t *Tree) passOn(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	now, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return
	}
	passed := strings.Fields(string(now))
	for _, c := range []string{"cpu", "memory", "pids", "io", "cpuset"} {
		if slices.Contains(strings.Fields(string(have)), c) && !slices.Contains(passed, c) {
			_ = write(dir, "cgroup.subtree_control", "+"+c) // Missing tells
		}
	}
}

// Missing tells which controllers a made path of version 2 lacks, or what Lost tells.
func (t *Tree) Missing(path string) []string {
	if !t.Unified {
		return t.lost
	}
	have, err := os.ReadFile(filepath.Join(t.root, path, "cgroup.controllers"))
	if err != nil {
		return []string{"cpu", "memory", "pids"}
	}
	var missing []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(strings.Fields(string(have)), c) {
			missing = append(missing, c)
		}
	}
	return missing
}

func write(dir, name, value string) error {
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("writing %s to %s: %w", value, name, err)
	}
	return nil
}

func readUint(dir, name string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return 0, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

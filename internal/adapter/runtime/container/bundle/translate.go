package bundle

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/cgroup"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// Bind is a source on the node whose mount the stage is given as a file.
type Bind struct {
	Source    string
	Recursive bool
}

// attributes are mount options of the mount, not of its file system.
var attributes = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME, "nodiratime": unix.MOUNT_ATTR_NODIRATIME,
	"strictatime": unix.MOUNT_ATTR_STRICTATIME, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	"rro": unix.MOUNT_ATTR_RDONLY, "rnosuid": unix.MOUNT_ATTR_NOSUID, "rnodev": unix.MOUNT_ATTR_NODEV, "rnoexec": unix.MOUNT_ATTR_NOEXEC,
}

// neutral are options that are the default anyway.
var neutral = []string{"rw", "suid", "dev", "exec", "relatime", "bind", "defaults", "async", "atime", "diratime", "norelatime"}

var propagations = map[string]uint64{
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED, "slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE,
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE,
}

// devices every container has; OCI runtimes add the same by themselves.
var devices = []wire.Device{
	{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3},
	{Path: "/dev/zero", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 5},
	{Path: "/dev/full", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 7},
	{Path: "/dev/random", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 8},
	{Path: "/dev/urandom", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 9},
	{Path: "/dev/tty", Mode: unix.S_IFCHR | 0o666, Major: 5, Minor: 0},
}

var links = []wire.Link{
	{Path: "/dev/ptmx", To: "pts/ptmx"},
	{Path: "/dev/fd", To: "/proc/self/fd"},
	{Path: "/dev/stdin", To: "/proc/self/fd/0"},
	{Path: "/dev/stdout", To: "/proc/self/fd/1"},
	{Path: "/dev/stderr", To: "/proc/self/fd/2"},
}

// Plan translates a spec for our own pod program. The binds are to be opened in order.
func Plan(spec *specs.Spec, groups *cgroup.Tree, shm string) (wire.Stage, []Bind, error) {
	process, err := Process(spec.Process)
	if err != nil {
		return wire.Stage{}, nil, err
	}
	stage := wire.Stage{
		Process:  process,
		Devices:  slices.Clone(devices),
		Links:    links,
		Masked:   spec.Linux.MaskedPaths,
		Readonly: spec.Linux.ReadonlyPaths,
		Root:     wire.Root{Readonly: spec.Root.Readonly},
	}
	for _, ns := range spec.Linux.Namespaces {
		stage.CgroupNS = stage.CgroupNS || ns.Type == specs.CgroupNamespace
	}
	for _, d := range spec.Linux.Devices {
		stage.Devices = append(stage.Devices, device(d))
	}
	var binds []Bind
	for _, m := range spec.Mounts {
		if m.Type == "cgroup" {
			stage.Mounts = append(stage.Mounts, cgroupMounts(m, spec.Linux.CgroupsPath, groups)...)
			continue
		}
		mount, bind, err := translate(m)
		if err != nil {
			return wire.Stage{}, nil, fmt.Errorf("mount at %s: %w", m.Destination, err)
		}
		if mount.Bind && bind.Source == shm {
			mount.From, mount.Dir = shm, true
		} else if mount.Bind {
			binds = append(binds, bind)
		}
		stage.Mounts = append(stage.Mounts, mount)
	}
	return stage, binds, nil
}

func translate(m specs.Mount) (wire.Mount, Bind, error) {
	out, bind, rest := options(m)
	if !out.Bind {
		if m.Source != "" {
			rest = append(rest, wire.Option{Key: "source", Value: m.Source})
		}
		out.Options = rest
		return out, Bind{}, nil
	}
	if len(rest) > 0 {
		return out, bind, fmt.Errorf("unknown option %q", rest[0].Key)
	}
	out.Type = ""
	if !filepath.IsAbs(m.Source) {
		return out, bind, fmt.Errorf("source %q is not an absolute path", m.Source)
	}
	return out, bind, nil
}

// options sorts a mount's options; the rest are the file system's own.
func options(m specs.Mount) (out wire.Mount, bind Bind, rest []wire.Option) {
	out = wire.Mount{Target: m.Destination, Type: m.Type, Bind: m.Type == "bind" || m.Type == "none"}
	bind.Source = m.Source
	for _, o := range m.Options {
		switch {
		case o == "bind":
			out.Bind = true
		case o == "rbind":
			out.Bind, bind.Recursive = true, true
		case attributes[o] != 0:
			out.Attr |= attributes[o]
			out.Recursive = out.Recursive || o[0] == 'r' && o != "ro"
		case propagations[o] != 0:
			out.Propagation = propagations[o]
		case slices.Contains(neutral, o):
		default:
			key, value, _ := strings.Cut(o, "=")
			rest = append(rest, wire.Option{Key: key, Value: value})
		}
	}
	return out, bind, rest
}

// cgroupMounts shows the container its own control groups: on version 1 a folder with one mount
// for each controller, on version 2 the one file system.
func cgroupMounts(m specs.Mount, path string, groups *cgroup.Tree) []wire.Mount {
	if groups == nil {
		return nil
	}
	const safe = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	attr := uint64(safe)
	if slices.Contains(m.Options, "ro") {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if groups.Unified {
		return []wire.Mount{{Target: m.Destination, Bind: true, Dir: true, From: groups.Folder(path), Attr: attr}}
	}
	mounts := []wire.Mount{{Target: m.Destination, Type: "tmpfs", Options: []wire.Option{{Key: "mode", Value: "755"}}, Attr: safe}}
	for _, h := range groups.V1 {
		for _, name := range h.Names {
			if name == cgroup.Hybrid {
				continue
			}
			name = strings.TrimPrefix(name, "name=")
			mounts = append(mounts, wire.Mount{
				Target: m.Destination + "/" + name, Bind: true, Dir: true, From: filepath.Join(h.Mount, path), Attr: attr,
			})
		}
	}
	return append(mounts, wire.Mount{Target: m.Destination, Seal: true, Attr: attr})
}

func device(d specs.LinuxDevice) wire.Device {
	kind := uint32(unix.S_IFCHR)
	switch d.Type {
	case "b":
		kind = unix.S_IFBLK
	case "p":
		kind = unix.S_IFIFO
	}
	out := wire.Device{Path: d.Path, Mode: kind | 0o666, Major: uint32(d.Major), Minor: uint32(d.Minor)}
	if d.FileMode != nil {
		out.Mode = kind | uint32(d.FileMode.Perm())
	}
	if d.UID != nil {
		out.UID = int(*d.UID)
	}
	if d.GID != nil {
		out.GID = int(*d.GID)
	}
	return out
}

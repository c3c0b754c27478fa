package container

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/bundle"
	"ebb.dev/ebb/internal/adapter/runtime/container/cgroup"
)

// node is what this machine lets us do, found once at start.
type node struct {
	boot    string
	allowed uint64 // capabilities we have
	limits  []string
	devices []specs.LinuxDevice // the node's own, for privileged containers
	oom     int                 // our own oom_score_adj
	oci     map[string]ociProgram
}

func inspectNode(groups *cgroup.Tree, root string) node {
	n := node{boot: bootID(), allowed: capabilities(), devices: nodeDevices(), oom: ownOOMScoreAdj(), oci: findOCI()}
	n.limits = lostCapabilities(n.allowed)
	if groups == nil {
		n.limits = append(n.limits, "No control groups: CPU, memory and process limits of pods are not enforced, OOM kills are not told.")
	} else if missing := groups.Missing(root); len(missing) > 0 {
		n.limits = append(n.limits, "Control groups lack "+strings.Join(missing, ", ")+": those limits of pods are not enforced.")
	}
	return n
}

// Limits tells what pods lose on this node, one sentence each.
func (r *Runtime) Limits() []string { return r.node.limits }

func lostCapabilities(have uint64) []string {
	var limits []string
	var others []string
	for _, name := range bundle.Names(^have) {
		switch name {
		case "CAP_SYS_RESOURCE":
			limits = append(limits, "No CAP_SYS_RESOURCE: processes cannot be given a lower oom_score_adj or higher resource limits than ebb's own.")
		default:
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		limits = append(limits, "ebb lacks "+strings.Join(others, ", ")+": containers cannot be given them, privileged ones neither.")
	}
	return limits
}

// capabilities are those we can hand on.
func capabilities() uint64 {
	data, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return 0
	}
	have := ^uint64(0)
	for line := range strings.SplitSeq(string(data), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if name != "CapPrm" && name != "CapBnd" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return 0
		}
		have &= bits
	}
	return have
}

func ownOOMScoreAdj() int {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return n
}

// nodeDevices lists the device nodes of /dev, without terminals and what containers have anyway.
func nodeDevices() []specs.LinuxDevice {
	var list []specs.LinuxDevice
	skip := map[string]bool{"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/fd": true, "/dev/console": true, "/dev/ptmx": true}
	_ = filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a device that went away is not listed
		}
		if skip[path] {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return nil //nolint:nilerr // a device that went away is not listed
		}
		kind := "b"
		if d.Type()&fs.ModeCharDevice != 0 {
			kind = "c"
		}
		mode := os.FileMode(st.Mode & 0o777)
		list = append(list, specs.LinuxDevice{
			Path: path, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
			FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
		})
		return nil
	})
	return list
}

// check refuses what this runtime cannot do.
func (n node) check(s runtime.SandboxSpec) error {
	if s.ID == "" || strings.ContainsAny(s.ID, "/\x00") || s.ID[0] == '.' {
		return fmt.Errorf("sandbox ID %q is not a name", s.ID)
	}
	program, known := n.oci[s.Handler]
	switch {
	case s.Handler != "" && !known:
		return fmt.Errorf("handler %q: %w", s.Handler, runtime.ErrUnsupported)
	case program.kernel && (s.HostNetwork || s.HostPID || s.HostIPC):
		return fmt.Errorf("the node's namespaces for a pod with its own kernel (handler %q): %w", s.Handler, runtime.ErrUnsupported)
	}
	return nil
}

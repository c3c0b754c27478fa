// Package bundle says how a container runs, twice: as a plain OCI runtime spec, made by one
// function for every handler, and as the plan our own pod program follows, translated from it.
package bundle

import (
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// Place is where the runtime puts a container.
type Place struct {
	Guard      int                 // process that holds the pod's namespaces
	Pause      int                 // process 1 of the shared process namespace, or 0
	CgroupPath string              // relative to the hierarchies' roots
	Root       string              // folder of the assembled root, for OCI runtimes
	Shm        string              // the pod's shared memory
	Devices    []specs.LinuxDevice // the node's, for privileged containers
	Allowed    uint64              // capabilities this node can give
	// OOMScoreAdj is ebb's own: without CAP_SYS_RESOURCE nothing can have a lower one.
	OOMScoreAdj int
}

// raises says whether resource limits may be raised here.
func (p Place) raises() bool { return p.Allowed&mask([]string{"CAP_SYS_RESOURCE"}) != 0 }

// TerminationPath is where a termination log appears when no mount of the container says.
const TerminationPath = "/dev/termination-log"

// Build makes the container's OCI spec.
func Build(s runtime.SandboxSpec, c runtime.ContainerSpec, p Place) *specs.Spec {
	process := c.Process
	process.Capabilities = limitCapabilities(process.Capabilities, p.Allowed)
	oom := c.Resources.OOMScoreAdj
	if !p.raises() {
		oom = max(oom, p.OOMScoreAdj)
		process.Rlimits = limitRlimits(process.Rlimits)
	}
	process.OOMScoreAdj = &oom
	spec := &specs.Spec{
		Version:     specs.Version,
		Process:     &process,
		Root:        &specs.Root{Path: p.Root, Readonly: c.ReadOnlyRootFS},
		Mounts:      slices.Concat(systemMounts(s, c, p), terminationMount(c), c.Mounts),
		Annotations: c.Annotations,
		Linux: &specs.Linux{
			CgroupsPath:   "/" + p.CgroupPath,
			Namespaces:    namespaces(s, p),
			Resources:     resources(c),
			Seccomp:       c.Seccomp,
			MaskedPaths:   c.MaskedPaths,
			ReadonlyPaths: c.ReadonlyPaths,
		},
	}
	if c.Privileged {
		spec.Linux.Devices = p.Devices
	}
	return spec
}

func namespaces(s runtime.SandboxSpec, p Place) []specs.LinuxNamespace {
	proc := "/proc/" + strconv.Itoa(p.Guard) + "/ns/"
	list := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.CgroupNamespace},
		{Type: specs.NetworkNamespace, Path: proc + "net"},
		{Type: specs.IPCNamespace, Path: proc + "ipc"},
		{Type: specs.UTSNamespace, Path: proc + "uts"},
	}
	switch {
	case s.HostPID:
	case p.Pause > 0:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/" + strconv.Itoa(p.Pause) + "/ns/pid"})
	default:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	return list
}

// systemMounts are what every container finds: the list is containerd's for Kubernetes.
func systemMounts(s runtime.SandboxSpec, c runtime.ContainerSpec, p Place) []specs.Mount {
	safe := []string{"nosuid", "noexec", "nodev"}
	mode := "ro"
	if c.Privileged {
		mode = "rw"
	}
	shm := p.Shm
	if s.HostIPC {
		shm = "/dev/shm"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: safe},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: safe},
		{Destination: "/dev/shm", Type: "bind", Source: shm, Options: append([]string{"rbind", "rprivate", "rw"}, safe...)},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append([]string{mode}, safe...)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append([]string{mode, "relatime"}, safe...)},
	}
}

// terminationMount shows the termination log at its usual place if the mounts do not place it.
func terminationMount(c runtime.ContainerSpec) []specs.Mount {
	placed := slices.ContainsFunc(c.Mounts, func(m specs.Mount) bool {
		return filepath.Clean(m.Source) == filepath.Clean(c.TerminationLog)
	})
	if c.TerminationLog == "" || placed {
		return nil
	}
	return []specs.Mount{{Destination: TerminationPath, Type: "bind", Source: c.TerminationLog, Options: []string{"bind", "rprivate", "rw"}}}
}

func resources(c runtime.ContainerSpec) *specs.LinuxResources {
	r := c.Resources
	out := &specs.LinuxResources{Devices: DeviceRules(c.Privileged)}
	shares := r.CPUShares
	if shares > 0 || r.CPUQuotaUS > 0 {
		out.CPU = &specs.LinuxCPU{}
	}
	if shares > 0 {
		out.CPU.Shares = &shares
	}
	if r.CPUQuotaUS > 0 {
		quota, period := r.CPUQuotaUS, r.CPUPeriodUS
		if period == 0 {
			period = 100_000
		}
		out.CPU.Quota, out.CPU.Period = &quota, &period
	}
	if r.MemoryBytes > 0 {
		limit := r.MemoryBytes
		out.Memory = &specs.LinuxMemory{Limit: &limit}
	}
	if r.PIDs > 0 {
		limit := r.PIDs
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return out
}

// DeviceRules are what a container may do with devices: make any node, use the harmless ones and
// terminals. Privileged ones may do everything.
func DeviceRules(privileged bool) []specs.LinuxDeviceCgroup {
	if privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}} { // null zero full random urandom tty ptmx
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &n[0], Minor: &n[1], Access: "rwm"})
	}
	terminals := int64(136)
	return append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &terminals, Access: "rwm"})
}

// Package runtime is the family of things that start and stop a virtual node's pods.
//
// A Runtime is told about sandboxes (the network and namespaces a pod's containers share) and the
// containers in them; restart policy, probes, volumes and status belong to the node above it.
// Implementations live in folders of their own and all pass runtimetest.Run.
package runtime

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Errors a Runtime answers with; callers use errors.Is.
var (
	// ErrNotFound means the sandbox or container is not there (any more).
	ErrNotFound = errors.New("not found")
	// ErrNotRunning means the container is there and has ended.
	ErrNotRunning = errors.New("not running")
	// ErrUnsupported means this runtime cannot do what was asked, now or ever.
	ErrUnsupported = errors.New("not supported by this runtime")
)

// A Runtime starts and stops sandboxes and containers.
//
// Everything it starts outlives the calling process: after a crash a new Runtime on the same state
// folder lists what still runs and reports the exits that happened meanwhile. All methods are safe
// for concurrent use; those that stop or remove are safe to repeat.
type Runtime interface {
	// StartSandbox makes the pod's namespaces, address and cgroup. The same ID again returns the
	// sandbox that is there.
	StartSandbox(ctx context.Context, s SandboxSpec) (Sandbox, error)
	// StopSandbox kills what is left in it and gives back its address, mounts and cgroup.
	StopSandbox(ctx context.Context, sandboxID string) error
	// StartContainer creates and starts a container; it returns once the program was executed.
	StartContainer(ctx context.Context, c ContainerSpec) (Container, error)
	// SignalContainer sends a signal to the container's first process; SIGKILL goes to all of them.
	SignalContainer(ctx context.Context, containerID string, signal int) error
	// RemoveContainer frees a stopped container's root and state, logs stay where LogPath said.
	RemoveContainer(ctx context.Context, containerID string) error
	// List tells all sandboxes with their containers, running or not; used to adopt after a restart.
	List(ctx context.Context) ([]Sandbox, error)
	// Exits delivers each container's end once, as it happens; ends that were missed while no
	// process of ours ran are delivered after start. Closed when the Runtime is closed.
	Exits() <-chan Container
	// Exec runs a further process in a running container and returns its exit code.
	Exec(ctx context.Context, containerID string, e ExecSpec) (exitCode int, err error)
	// Attach joins the streams of the container's first process until ctx ends or it exits.
	Attach(ctx context.Context, containerID string, s Streams) error
	// Dial opens a TCP connection to a port inside the sandbox's network, 127.0.0.1 there.
	Dial(ctx context.Context, sandboxID string, port uint16) (net.Conn, error)
	// Stats measures the containers of a sandbox now.
	Stats(ctx context.Context, sandboxID string) (SandboxStats, error)
	// Close lets go of everything without stopping any container.
	Close() error
}

// SandboxSpec says what a pod's containers share.
type SandboxSpec struct {
	ID        string // the pod's UID
	Namespace string // of the pod, for names and messages
	Name      string // of the pod
	Handler   string // RuntimeClass handler: "" is the default, else "runc", "gvisor", …
	Hostname  string
	Resources Resources // the pod's total limits; zero values mean none
	Sysctls   map[string]string
	// HostNetwork, HostPID and HostIPC share the node's namespaces instead of making new ones.
	HostNetwork, HostPID, HostIPC bool
	// ShareProcessNamespace gives all containers one PID namespace.
	ShareProcessNamespace bool
	// Annotations are kept with the sandbox and come back in List.
	Annotations map[string]string
}

// Sandbox is a pod's shared part as the runtime sees it.
type Sandbox struct {
	ID          string
	Namespace   string
	Name        string
	IP          netip.Addr // invalid with HostNetwork
	Created     time.Time
	Annotations map[string]string
	Containers  []Container // filled by List
	// CgroupPath is relative to each hierarchy's root, "" where the runtime has none.
	CgroupPath string
}

// Resources are limits for a container or a whole sandbox. Zero means unlimited (shares: default).
type Resources struct {
	CPUShares   uint64 // cgroup v1 scale, 1024 is one core; converted to weight on v2
	CPUQuotaUS  int64  // per CPUPeriodUS
	CPUPeriodUS uint64
	MemoryBytes int64
	PIDs        int64
	OOMScoreAdj int
}

// ContainerSpec says how one container runs.
type ContainerSpec struct {
	ID        string // unique for ever: a restart is a new ID
	SandboxID string
	Name      string // in the pod
	Attempt   int    // restart count, part of the name only
	// RootFS are unpacked image layers, lowest first, as given by Images; the runtime stacks them
	// and adds a writable layer of its own.
	RootFS         []string
	ReadOnlyRootFS bool
	// Process is the plain OCI process: args, env, cwd, user, capabilities, no_new_privs, rlimits,
	// terminal. The runtime adds nothing to it but what the sandbox needs.
	Process specs.Process
	// Mounts come after the runtime's own (/proc, /dev, /sys, cgroup); bind sources are absolute
	// host paths or already opened directories given as /proc/self/fd/N.
	Mounts     []specs.Mount
	Privileged bool
	// Seccomp is nil for unconfined.
	Seccomp        *specs.LinuxSeccomp
	MaskedPaths    []string
	ReadonlyPaths  []string
	Resources      Resources
	LogPath        string // CRI log format, written by the container's own guardian process
	Stdin          bool   // keep a stdin that Attach can write to
	StdinOnce      bool
	TerminationLog string // host path bind-mounted at the container's termination message path, or ""
	Annotations    map[string]string
}

// Container is one container as the runtime sees it.
type Container struct {
	ID          string
	SandboxID   string
	Name        string
	Attempt     int
	PID         int // on the host; 0 when not running
	Started     time.Time
	Finished    time.Time // zero while it runs
	ExitCode    int       // 128+signal when killed by one
	Signal      int
	OOMKilled   bool
	LogPath     string
	Annotations map[string]string
}

// Running says whether the container's first process is alive.
func (c Container) Running() bool { return c.Finished.IsZero() }

// Streams are the ends a caller gives to Exec or Attach; nil ones are not connected.
type Streams struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer // nil with a terminal
	Resize <-chan Size
}

// Size is a terminal's, in characters.
type Size struct{ Width, Height uint16 }

// ExecSpec says what to run in a container that is already there.
type ExecSpec struct {
	Args     []string
	Terminal bool
	Streams
}

// SandboxStats is one measurement of a sandbox.
type SandboxStats struct {
	Time       time.Time
	Containers map[string]ContainerStats // by container name
	Network    NetworkStats
}

// ContainerStats are cumulative CPU and present memory.
type ContainerStats struct {
	Started       time.Time
	CPUNanos      uint64 // total since start
	MemoryBytes   uint64 // usage as the kernel accounts it
	WorkingSet    uint64 // usage less inactive file pages
	RSSBytes      uint64
	RootFSBytes   uint64 // writable layer
	ProcessCount  uint64
	OOMKillEvents uint64
}

// NetworkStats are cumulative for the sandbox's interface.
type NetworkStats struct{ RxBytes, TxBytes, RxErrors, TxErrors uint64 }

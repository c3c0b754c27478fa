package wire

import "time"

// Version is the newest form of these messages. Fields are only ever added.
const Version = 1

// Kinds of failure that callers tell apart.
const (
	NotFound   = "not-found"   // no such container
	NotRunning = "not-running" // it has ended
	BadCommand = "bad-command" // the program cannot be executed
)

// Request is the first message on a connection to a guardian; exactly one part is set.
type Request struct {
	Configure *Configure `json:",omitempty"`
	Start     *Start     `json:",omitempty"`
	Signal    *Signal    `json:",omitempty"`
	Exec      *Exec      `json:",omitempty"`
	Attach    *Attach    `json:",omitempty"`
	Forget    *Forget    `json:",omitempty"`
	Watch     bool       `json:",omitempty"` // exits are sent as Container messages until closed
	Parked    bool       `json:",omitempty"` // answered once the process asked for by ParkEnv waits
	End       bool       `json:",omitempty"` // kill everything and exit
}

// Reply answers a Request.
type Reply struct {
	Error     string     `json:",omitempty"`
	Kind      string     `json:",omitempty"`
	Container *Container `json:",omitempty"`
	// Exec: the terminal's master side rides with the first reply; the second has the code.
	Started  bool `json:",omitempty"`
	Exited   bool `json:",omitempty"`
	ExitCode int  `json:",omitempty"`
	// Configure: process 1 of the shared process namespace.
	Pause int `json:",omitempty"`
}

// Configure turns a parked guardian into a pod's.
type Configure struct {
	Hostname string            `json:",omitempty"` // "" leaves it
	Sysctls  map[string]string `json:",omitempty"`
	SharePID bool              `json:",omitempty"` // start a process that holds the shared namespace
	Join     []string          `json:",omitempty"` // cgroup.procs files for that process
}

// ParkEnv is the guardian's environment variable that holds a Park as JSON.
const ParkEnv = "EBB_PARK"

// Park asks for a container process to be started and held ready in a cgroup, from the guardian's
// first moment on: joining cgroups is what takes longest, and others have things to do meanwhile.
type Park struct {
	Join     []string // cgroup.procs files
	CgroupFD string   `json:",omitempty"` // cgroup v2: folder to be cloned into instead
	Cgroup   string   // the name Start will use
}

// Container is what the guardian remembers and writes to the state file.
type Container struct {
	ID          string
	Name        string `json:",omitempty"`
	Attempt     int    `json:",omitempty"`
	Cgroup      string `json:",omitempty"` // relative to each hierarchy's root
	Dir         string `json:",omitempty"` // of the writable layer, relative to the guardian's folder
	LogPath     string `json:",omitempty"`
	Annotations map[string]string
	PID         int
	StartTicks  uint64 // since boot, tells a reused PID apart
	Started     time.Time
	Finished    time.Time
	ExitCode    int
	Signal      int
	OOMKilled   bool
	Terminal    bool `json:",omitempty"`
	OCI         *OCI `json:",omitempty"`
}

// OCI says which OCI runtime runs a container.
type OCI struct {
	Binary string
	Root   string   // its --root
	Flags  []string `json:",omitempty"` // further global flags
	Bundle string   // folder with config.json; the root file system is mounted at rootfs in it
	// Kernel is set where the pod has a kernel of its own, as in gVisor.
	Kernel *Kernel `json:",omitempty"`
}

// Kernel is a pod's own kernel: to the OCI runtime a container that the others are put into.
type Kernel struct {
	ID     string
	Bundle string // its program is put at rootfs/pause
}

// Start starts a container. Files: log folder if Log is set, then one per Mount with Bind.
type Start struct {
	Container Container
	Join      []string // cgroup.procs files, one per hierarchy; the first one lists who is to be killed
	CgroupFD  string   `json:",omitempty"` // cgroup v2: folder to be cloned into instead
	OOMFile   string   `json:",omitempty"` // file with an oom_kill line
	LogName   string   `json:",omitempty"` // in the log folder
	Stdin     bool     `json:",omitempty"`
	StdinOnce bool     `json:",omitempty"`
	HostPID   bool     `json:",omitempty"`
	SharePID  bool     `json:",omitempty"`
	Stage     Stage
}

// Signal sends a signal to a container's first process, or to all its processes.
type Signal struct {
	ID     string
	Signal int
	All    bool `json:",omitempty"`
}

// Exec runs a further process with the rights of the container's own. Without a terminal three
// files ride along: its stdin, stdout and stderr.
type Exec struct {
	ID       string
	Args     []string
	Terminal bool `json:",omitempty"`
	Size     Size
}

// Attach turns the connection into frames to and from the container's first process.
type Attach struct {
	ID    string
	Stdin bool `json:",omitempty"`
}

// Forget drops an ended container from memory and from the folder.
type Forget struct{ ID string }

// Size is a terminal's, in characters.
type Size struct{ Width, Height uint16 }

// Frame is one piece of an attached stream. Stream is 0 in (empty: closed), 1 out, 2 err, 3 resize.
type Frame struct {
	Stream int
	Data   []byte `json:",omitempty"`
	Size   Size
	End    string `json:",omitempty"` // why the guardian ends the stream; "exit" when the program did
}

package wire

// Stage is all a process must do to become a container's program.
type Stage struct {
	Root     Root
	Mounts   []Mount
	Devices  []Device
	Links    []Link
	Masked   []string `json:",omitempty"`
	Readonly []string `json:",omitempty"`
	Process  Process
	// Enter is set for a process that joins a running container instead of building a root.
	Enter bool `json:",omitempty"`
	// CgroupNS makes a cgroup namespace, so that the container sees its own cgroup as the root.
	CgroupNS bool `json:",omitempty"`
}

// Root is a stack of folders with a writable one on top.
type Root struct {
	Layers   []string // lowest first
	Upper    string
	Work     string
	At       string // an empty folder to mount it at
	Readonly bool   `json:",omitempty"`
}

// Mount is one mount in order. Bind ones use the next file of the message, a detached tree, or what
// is at From; Seal only sets the attributes of the mount that is at Target already.
type Mount struct {
	Target      string // inside the root
	Bind        bool   `json:",omitempty"`
	From        string `json:",omitempty"` // on the node, or relative to the guardian's folder
	Seal        bool   `json:",omitempty"`
	Dir         bool   `json:",omitempty"` // the target is a folder
	Type        string `json:",omitempty"`
	Options     []Option
	Attr        uint64 `json:",omitempty"` // MOUNT_ATTR_*
	Recursive   bool   `json:",omitempty"` // Attr holds for what is mounted below, too
	Propagation uint64 `json:",omitempty"` // MS_SHARED, MS_SLAVE, MS_PRIVATE; 0 is private
}

// Option is one parameter of a file system.
type Option struct {
	Key   string
	Value string `json:",omitempty"`
}

// Device is a node to make in /dev.
type Device struct {
	Path         string
	Mode         uint32 // with type bits
	Major, Minor uint32
	UID, GID     int `json:",omitempty"`
}

// Link is a symbolic link to make.
type Link struct{ Path, To string }

// Process is the program and what it may do.
type Process struct {
	Args, Env   []string
	Cwd         string
	UID, GID    uint32
	Groups      []uint32 `json:",omitempty"`
	Umask       *uint32  `json:",omitempty"`
	Terminal    bool     `json:",omitempty"`
	Size        Size
	NoNewPrivs  bool `json:",omitempty"`
	Bounding    uint64
	Effective   uint64
	Permitted   uint64
	Inheritable uint64
	Ambient     uint64
	Rlimits     []Rlimit `json:",omitempty"`
	OOMScoreAdj *int     `json:",omitempty"`
	Seccomp     []byte   `json:",omitempty"` // struct sock_filter array
	SeccompFlag uint     `json:",omitempty"`
}

// Rlimit is one resource limit.
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// Report is what a stage process says: once with Master for a terminal, then Ready just before the
// program is executed. The socket closing after Ready means it runs.
type Report struct {
	Ready  bool   `json:",omitempty"`
	Master bool   `json:",omitempty"` // the terminal's master rides along
	Error  string `json:",omitempty"`
	Kind   string `json:",omitempty"`
}

package bundle

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// capabilityNames are in the kernel's order: the index is the number.
var capabilityNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
	"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// mask turns names into bits; unknown names are no bit, as OCI runtimes ignore them.
func mask(names []string) uint64 {
	var bits uint64
	for _, n := range names {
		if i := slices.Index(capabilityNames[:], n); i >= 0 {
			bits |= 1 << i
		}
	}
	return bits
}

// Names turns bits into names.
func Names(bits uint64) []string {
	var names []string
	for i, n := range capabilityNames {
		if bits&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// limitCapabilities leaves out what this node cannot give, so that the rest is not lost with it.
func limitCapabilities(c *specs.LinuxCapabilities, allowed uint64) *specs.LinuxCapabilities {
	if c == nil {
		return nil
	}
	keep := func(names []string) []string { return Names(mask(names) & allowed) }
	return &specs.LinuxCapabilities{
		Bounding:    keep(c.Bounding),
		Effective:   keep(c.Effective),
		Permitted:   keep(c.Permitted),
		Inheritable: keep(c.Inheritable),
		Ambient:     keep(c.Ambient),
	}
}

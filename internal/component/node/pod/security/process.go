package security

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// defaults are the capabilities a container has when the pod says nothing.
var defaults = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// every is all capabilities the kernel interface defines.
var every = []string{
	"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
	"CAP_SETUID", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE",
	"CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM",
}

// Privileged says whether the container has all of the machine.
func Privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}

// Capabilities are the container's, after add and drop.
func Capabilities(c *corev1.Container) (*specs.LinuxCapabilities, error) {
	caps := slices.Clone(defaults)
	if Privileged(c) {
		caps = slices.Clone(every)
	} else if c.SecurityContext != nil && c.SecurityContext.Capabilities != nil {
		var err error
		if caps, err = adjust(c.SecurityContext.Capabilities); err != nil {
			return nil, err
		}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}, nil
}

func adjust(want *corev1.Capabilities) ([]string, error) {
	caps := slices.Clone(defaults)
	if slices.Contains(names(want.Add), "CAP_ALL") {
		caps = slices.Clone(every)
	}
	drop := names(want.Drop)
	if slices.Contains(drop, "CAP_ALL") {
		caps = nil
	}
	caps = slices.DeleteFunc(caps, func(name string) bool { return slices.Contains(drop, name) })
	for _, name := range names(want.Add) {
		switch {
		case name == "CAP_ALL":
			if len(caps) == 0 { // add ALL beside drop ALL: adding wins
				caps = slices.Clone(every)
			}
		case !slices.Contains(every, name):
			return nil, fmt.Errorf("%w: unknown capability %q", ErrConfig, strings.TrimPrefix(name, "CAP_"))
		case !slices.Contains(caps, name):
			caps = append(caps, name)
		}
	}
	slices.Sort(caps)
	return caps, nil
}

func names(caps []corev1.Capability) []string {
	out := make([]string, 0, len(caps))
	for _, c := range caps {
		name := strings.ToUpper(string(c))
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		out = append(out, name)
	}
	return out
}

// NoNewPrivileges says whether a set-uid program may not raise the container's rights.
func NoNewPrivileges(c *corev1.Container) bool {
	sc := c.SecurityContext
	return sc != nil && sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation && !Privileged(c)
}

// Profiles are the seccomp filters a node has.
type Profiles struct {
	// Default builds the runtime's own profile for these capabilities.
	Default func(capabilities []string) (*specs.LinuxSeccomp, error)
	Dir     string // of profiles that pods name by a relative path
}

// Seccomp is the container's filter, nil for unconfined.
func (p Profiles) Seccomp(pod *corev1.Pod, c *corev1.Container, capabilities []string) (*specs.LinuxSeccomp, error) {
	if Privileged(c) {
		return nil, nil
	}
	podSC, sc := contexts(pod, c)
	profile := firstOf(sc.SeccompProfile, podSC.SeccompProfile)
	if profile == nil {
		profile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	switch profile.Type {
	case corev1.SeccompProfileTypeUnconfined:
		return nil, nil
	case corev1.SeccompProfileTypeLocalhost:
		return p.local(profile)
	case corev1.SeccompProfileTypeRuntimeDefault:
		if p.Default == nil {
			return nil, nil
		}
		return p.Default(capabilities)
	}
	return nil, fmt.Errorf("%w: unknown seccomp profile type %q", ErrConfig, profile.Type)
}

func (p Profiles) local(profile *corev1.SeccompProfile) (*specs.LinuxSeccomp, error) {
	if profile.LocalhostProfile == nil {
		return nil, fmt.Errorf("%w: seccomp profile type Localhost names no profile", ErrConfig)
	}
	name := *profile.LocalhostProfile
	handle, err := pathrs.OpenInRoot(p.Dir, name)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot load seccomp profile %q from %s: %w", ErrConfig, name, filepath.Clean(p.Dir), err)
	}
	defer handle.Close()
	f, err := pathrs.Reopen(handle, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot load seccomp profile %q: %w", ErrConfig, name, err)
	}
	defer f.Close()
	filter := &specs.LinuxSeccomp{}
	if err := json.NewDecoder(f).Decode(filter); err != nil {
		return nil, fmt.Errorf("%w: seccomp profile %q: %w", ErrConfig, name, err)
	}
	return filter, nil
}

// Paths are the parts of /proc and /sys that are hidden or read-only.
func Paths(c *corev1.Container) (masked, readonly []string) {
	if Privileged(c) {
		return nil, nil
	}
	if sc := c.SecurityContext; sc != nil && sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
		return nil, nil
	}
	masked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	thermal, err := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	if err == nil {
		masked = append(masked, thermal...)
	}
	return masked, []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// AppArmor is the profile's name for the process, "" for the runtime's own choice.
func AppArmor(pod *corev1.Pod, c *corev1.Container) (string, error) {
	podSC, sc := contexts(pod, c)
	profile := firstOf(sc.AppArmorProfile, podSC.AppArmorProfile)
	if profile == nil {
		return "", nil
	}
	switch profile.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		return "unconfined", nil
	case corev1.AppArmorProfileTypeLocalhost:
		if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
			return "", fmt.Errorf("%w: cannot enforce AppArmor: AppArmor is not enabled on the host", ErrConfig)
		}
		if profile.LocalhostProfile == nil {
			return "", fmt.Errorf("%w: AppArmor profile type Localhost names no profile", ErrConfig)
		}
		return *profile.LocalhostProfile, nil
	case corev1.AppArmorProfileTypeRuntimeDefault: // the runtime's own choice
	}
	return "", nil
}

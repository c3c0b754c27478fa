// Package seccomp compiles OCI seccomp profiles to the kernel's filter programs.
//
// A program asks for the architecture, then for the system call by number: calls with the same
// answer and neighbouring numbers are one range, calls with conditions on arguments are tested one
// by one. What no rule names gets the default action; calls newer than the newest one a profile
// names get ENOSYS where the default is an error, so that programs fall back as on an old kernel.
package seccomp

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ErrUnsupported marks a profile that asks for what a filter of ours cannot do.
var ErrUnsupported = errors.New("not supported in a seccomp profile here")

// maxInstructions is the kernel's limit of one program.
const maxInstructions = 4096

// cacheSize bounds the compiled programs kept; nodes use few different profiles.
const cacheSize = 32

// Filter is a compiled profile.
type Filter struct {
	Program []byte // struct sock_filter array
	Flags   uint   // for seccomp(2)
}

// Default is the profile of container engines for a container with these capabilities.
func Default(capabilities []string) (*specs.LinuxSeccomp, error) {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}}
	profile, err := profiles.GetDefaultProfile(spec)
	if err != nil {
		return nil, fmt.Errorf("making the default seccomp profile: %w", err)
	}
	return profile, nil
}

// Compiler compiles profiles and remembers the last few. The zero value is ready.
type Compiler struct {
	mu   sync.Mutex // guards done
	done map[[sha256.Size]byte]Filter
}

// Compile gives the filter of a profile; nil is no filter.
func (c *Compiler) Compile(profile *specs.LinuxSeccomp) (Filter, error) {
	if profile == nil {
		return Filter{}, nil
	}
	text, err := json.Marshal(profile)
	if err != nil {
		return Filter{}, fmt.Errorf("reading a seccomp profile: %w", err)
	}
	key := sha256.Sum256(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.done[key]; ok {
		return f, nil
	}
	f, err := Compile(profile)
	if err != nil {
		return Filter{}, err
	}
	if c.done == nil || len(c.done) >= cacheSize {
		c.done = map[[sha256.Size]byte]Filter{}
	}
	c.done[key] = f
	return f, nil
}

// Compile compiles one profile.
func Compile(profile *specs.LinuxSeccomp) (Filter, error) {
	if profile.ListenerPath != "" {
		return Filter{}, fmt.Errorf("listener: %w", ErrUnsupported)
	}
	flags, err := flagBits(profile.Flags)
	if err != nil {
		return Filter{}, err
	}
	code, err := assemble(profile)
	if err != nil {
		return Filter{}, fmt.Errorf("compiling a seccomp profile: %w", err)
	}
	if len(code) > maxInstructions {
		return Filter{}, fmt.Errorf("compiling a seccomp profile: %d instructions, the kernel takes %d: %w", len(code), maxInstructions, ErrUnsupported)
	}
	return Filter{Program: encode(code), Flags: flags}, nil
}

func flagBits(flags []specs.LinuxSeccompFlag) (uint, error) {
	if flags == nil { // as OCI runtimes do: no speculation barrier for every filtered process
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var bits uint
	for _, f := range flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC": // the program starts with one thread
		default:
			return 0, fmt.Errorf("flag %s: %w", f, ErrUnsupported)
		}
	}
	return bits, nil
}

// actionValue is what a filter returns for an action.
func actionValue(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	number := uint32(unix.EPERM)
	if errno != nil {
		number = uint32(min(*errno, 4095))
	}
	switch action {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | number, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | number, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActNotify: // needs somebody who listens
	}
	return 0, fmt.Errorf("action %q: %w", action, ErrUnsupported)
}

// call is the answer to one system call by number.
type call struct {
	number  uint32
	action  uint32 // with no rules: the answer at once
	rules   []conditional
	settled bool // an unconditional rule decided
}

type conditional struct {
	args   []specs.LinuxSeccompArg
	action uint32
}

// calls gathers what a profile says about each system call of one architecture, by number. The
// second result is the newest call it names.
func calls(profile *specs.LinuxSeccomp, names map[string]int, offset int, otherwise uint32) ([]call, uint32, error) {
	byNumber := map[uint32]*call{}
	newest := uint32(0)
	for _, s := range profile.Syscalls {
		action, err := actionValue(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, 0, err
		}
		for _, name := range s.Names {
			n, ok := names[name]
			if !ok {
				continue // of another architecture, or newer than our table
			}
			number := uint32(n | offset)
			newest = max(newest, number)
			c := byNumber[number]
			if c == nil {
				c = &call{number: number, action: otherwise}
				byNumber[number] = c
			}
			switch {
			case c.settled:
			case len(s.Args) == 0:
				c.action, c.rules, c.settled = action, nil, true
			default:
				c.rules = append(c.rules, conditional{s.Args, action})
			}
		}
	}
	list := make([]call, 0, len(byNumber))
	for _, c := range byNumber {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b call) int { return int(a.number) - int(b.number) })
	return list, newest, nil
}

package bundle

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// rlimits are the kernel's numbers of resource limits; they are the same on amd64 and arm64.
var rlimits = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
	"RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

// Process translates an OCI process, without seccomp.
func Process(p *specs.Process) (wire.Process, error) {
	out := wire.Process{
		Args:        p.Args,
		Env:         p.Env,
		Cwd:         p.Cwd,
		UID:         p.User.UID,
		GID:         p.User.GID,
		Groups:      p.User.AdditionalGids,
		Umask:       p.User.Umask,
		Terminal:    p.Terminal,
		NoNewPrivs:  p.NoNewPrivileges,
		OOMScoreAdj: p.OOMScoreAdj,
	}
	if c := p.Capabilities; c != nil {
		out.Bounding, out.Effective, out.Permitted = mask(c.Bounding), mask(c.Effective), mask(c.Permitted)
		out.Inheritable, out.Ambient = mask(c.Inheritable), mask(c.Ambient)
	}
	if out.UID != 0 {
		// As execve would: without root only ambient capabilities stay; kept here so that what is
		// set equals what the program gets.
		out.Effective &= out.Permitted
	}
	if p.ConsoleSize != nil {
		out.Size = wire.Size{Width: uint16(p.ConsoleSize.Width), Height: uint16(p.ConsoleSize.Height)}
	}
	for _, l := range p.Rlimits {
		n, ok := rlimits[l.Type]
		if !ok {
			return out, fmt.Errorf("resource limit %q is not known", l.Type)
		}
		out.Rlimits = append(out.Rlimits, wire.Rlimit{Resource: n, Soft: l.Soft, Hard: l.Hard})
	}
	return out, nil
}

// limitRlimits lowers limits to what this process has itself, which is all it can hand on without
// CAP_SYS_RESOURCE.
func limitRlimits(wanted []specs.POSIXRlimit) []specs.POSIXRlimit {
	out := make([]specs.POSIXRlimit, 0, len(wanted))
	for _, l := range wanted {
		n, ok := rlimits[l.Type]
		var own unix.Rlimit
		if ok && unix.Prlimit(0, n, nil, &own) == nil {
			l.Hard = min(l.Hard, own.Max)
			l.Soft = min(l.Soft, l.Hard)
		}
		out = append(out, l)
	}
	return out
}

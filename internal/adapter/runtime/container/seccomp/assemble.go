package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offNumber, offArch, offArgs = 0, 4, 16
)

// Instruction codes.
const (
	opLoad  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd   = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opAbove = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opJump  = unix.BPF_JMP | unix.BPF_JA
	opReply = unix.BPF_RET | unix.BPF_K
)

// x32Bit marks calls of the x32 ABI, which shares amd64's architecture number.
const x32Bit = 0x40000000

// abi is one way to make system calls.
type abi struct {
	id    uint32
	names map[string]int
	bit   int
}

// native lists the ABIs of this machine's kernel that a profile may name, its own first.
func native() map[specs.Arch]abi {
	if runtime.GOARCH == "arm64" {
		return map[specs.Arch]abi{
			specs.ArchAARCH64: {uint32(arch.AARCH64.ID), arch.AARCH64.SyscallNames, 0},
			specs.ArchARM:     {uint32(arch.ARM.ID), arch.ARM.SyscallNames, 0},
		}
	}
	return map[specs.Arch]abi{
		specs.ArchX86_64: {uint32(arch.X86_64.ID), arch.X86_64.SyscallNames, 0},
		specs.ArchX86:    {uint32(arch.I386.ID), arch.I386.SyscallNames, 0},
		specs.ArchX32:    {uint32(arch.X32.ID), arch.X32.SyscallNames, x32Bit},
	}
}

// own is this machine's own ABI, which every filter covers.
func own() specs.Arch {
	if runtime.GOARCH == "arm64" {
		return specs.ArchAARCH64
	}
	return specs.ArchX86_64
}

// assemble makes the whole program: one section for each architecture number, and death for others.
func assemble(profile *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	otherwise, err := actionValue(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	known := native()
	wanted := []specs.Arch{own()}
	for _, a := range profile.Architectures {
		if _, ok := known[a]; ok && a != own() {
			wanted = append(wanted, a)
		}
	}
	sections := map[uint32][]unix.SockFilter{}
	var order []uint32
	for _, a := range wanted {
		code, err := section(profile, known[a], otherwise)
		if err != nil {
			return nil, err
		}
		id := known[a].id
		if sections[id] == nil {
			order = append(order, id)
		}
		sections[id] = append(sections[id], code...)
	}
	code := []unix.SockFilter{{Code: opLoad, K: offArch}}
	for _, id := range order {
		body := append([]unix.SockFilter{{Code: opLoad, K: offNumber}}, sections[id]...)
		body = append(body, unix.SockFilter{Code: opReply, K: otherwise})
		code = append(code, unix.SockFilter{Code: opEqual, Jt: 1, K: id}, unix.SockFilter{Code: opJump, K: uint32(len(body))})
		code = append(code, body...)
	}
	return append(code, unix.SockFilter{Code: opReply, K: unix.SECCOMP_RET_KILL_PROCESS}), nil
}

// section tests the number that is loaded; it falls through when the ABI is another.
func section(profile *specs.LinuxSeccomp, a abi, otherwise uint32) ([]unix.SockFilter, error) {
	list, newest, err := calls(profile, a.names, a.bit, otherwise)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var code []unix.SockFilter
	if a.bit == 0 && otherwise&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
		// Above the newest, but not of the x32 ABI, which is tested after this.
		code = append(code,
			unix.SockFilter{Code: opAbove, Jt: 0, Jf: 2, K: newest},
			unix.SockFilter{Code: opLeast, Jt: 1, Jf: 0, K: x32Bit},
			unix.SockFilter{Code: opReply, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	}
	for len(list) > 0 {
		if len(list[0].rules) > 0 {
			body, err := conditions(list[0])
			if err != nil {
				return nil, err
			}
			code = append(code, unix.SockFilter{Code: opEqual, Jt: 1, K: list[0].number}, unix.SockFilter{Code: opJump, K: uint32(len(body))})
			code = append(code, body...)
			list = list[1:]
			continue
		}
		n := alike(list)
		if list[0].action != otherwise {
			code = append(code, span(list[0].number, list[n-1].number)...)
			code = append(code, unix.SockFilter{Code: opReply, K: list[0].action})
		}
		list = list[n:]
	}
	return code, nil
}

// alike is how many calls from the first on have one answer and neighbouring numbers.
func alike(list []call) int {
	n := 1
	for n < len(list) && len(list[n].rules) == 0 && list[n].action == list[0].action && list[n].number == list[n-1].number+1 {
		n++
	}
	return n
}

// span skips the next instruction for numbers outside.
func span(first, last uint32) []unix.SockFilter {
	if first == last {
		return []unix.SockFilter{{Code: opEqual, Jf: 1, K: first}}
	}
	return []unix.SockFilter{{Code: opLeast, Jf: 2, K: first}, {Code: opAbove, Jt: 1, K: last}}
}

// conditions tests the rules of one call in order and ends with its default.
func conditions(c call) ([]unix.SockFilter, error) {
	var code []unix.SockFilter
	for _, r := range c.rules {
		var rule []unix.SockFilter
		rule = append(rule, unix.SockFilter{Code: opReply, K: r.action})
		for _, arg := range slices.Backward(r.args) { // from the end: each test knows how far to jump
			test, err := compare(arg, len(rule))
			if err != nil {
				return nil, err
			}
			rule = append(test, rule...)
		}
		code = append(code, rule...)
	}
	return append(code, unix.SockFilter{Code: opReply, K: c.action}), nil
}

// compare tests one 64-bit argument: it falls through if the test holds and else jumps over what
// follows, rest instructions.
func compare(a specs.LinuxSeccompArg, rest int) ([]unix.SockFilter, error) {
	if a.Index > 5 {
		return nil, fmt.Errorf("argument %d: %w", a.Index, ErrUnsupported)
	}
	low := uint32(offArgs + 8*a.Index)
	hi, lo := uint32(a.Value>>32), uint32(a.Value)
	out := func(left int) uint8 { return uint8(rest + left) } // left: instructions of ours after this one
	if rest > 200 {
		return nil, fmt.Errorf("%d conditions for one call: %w", rest/6, ErrUnsupported)
	}
	loadHigh, loadLow := unix.SockFilter{Code: opLoad, K: low + 4}, unix.SockFilter{Code: opLoad, K: low}
	switch a.Op {
	case specs.OpEqualTo:
		return []unix.SockFilter{loadHigh, {Code: opEqual, Jf: out(2), K: hi}, loadLow, {Code: opEqual, Jf: out(0), K: lo}}, nil
	case specs.OpNotEqual:
		return []unix.SockFilter{loadHigh, {Code: opEqual, Jf: 2, K: hi}, loadLow, {Code: opEqual, Jt: out(0), K: lo}}, nil
	case specs.OpMaskedEqual:
		wantHi, wantLo := uint32(a.ValueTwo>>32), uint32(a.ValueTwo)
		return []unix.SockFilter{
			loadHigh,
			{Code: opAnd, K: hi},
			{Code: opEqual, Jf: out(3), K: wantHi},
			loadLow,
			{Code: opAnd, K: lo},
			{Code: opEqual, Jf: out(0), K: wantLo},
		}, nil
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		last := uint16(opAbove)
		if a.Op == specs.OpGreaterEqual {
			last = opLeast
		}
		return []unix.SockFilter{loadHigh, {Code: opAbove, Jt: 3, K: hi}, {Code: opEqual, Jf: out(2), K: hi}, loadLow, {Code: last, Jf: out(0), K: lo}}, nil
	case specs.OpLessThan, specs.OpLessEqual:
		last := uint16(opLeast)
		if a.Op == specs.OpLessEqual {
			last = opAbove
		}
		return []unix.SockFilter{loadHigh, {Code: opAbove, Jt: out(3), K: hi}, {Code: opEqual, Jf: 2, K: hi}, loadLow, {Code: last, Jt: out(0), K: lo}}, nil
	}
	return nil, fmt.Errorf("comparison %q: %w", a.Op, ErrUnsupported)
}

func encode(code []unix.SockFilter) []byte {
	out := make([]byte, 0, 8*len(code))
	for _, c := range code {
		out = binary.NativeEndian.AppendUint16(out, c.Code)
		out = append(out, c.Jt, c.Jf)
		out = binary.NativeEndian.AppendUint32(out, c.K)
	}
	return out
}

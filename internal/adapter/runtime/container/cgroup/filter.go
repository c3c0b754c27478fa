package cgroup

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Fields of the context a device program gets (struct bpf_cgroup_dev_ctx), and its constants.
const (
	ctxAccess, ctxMajor, ctxMinor = 0, 4, 8

	devBlock, devChar            = 1, 2
	accMknod, accRead, accWrite  = 1, 2, 4
	opLoadWord                   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMoveReg                    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	opMoveImm                    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opAndImm                     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShiftImm                   = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opNotEqualImm, opNotEqualReg = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JNE | unix.BPF_X
	opExit                       = unix.BPF_JMP | unix.BPF_EXIT
)

// Registers of the program.
const (
	regResult, regContext, regType, regAccess, regMajor, regMinor, regWork = 0, 1, 2, 3, 4, 5, 6
)

// program is eBPF code: eight bytes an instruction.
type program []byte

func (p *program) add(op int, dst, src int, offset int16, imm int32) {
	*p = append(*p, byte(op), byte(src<<4|dst))
	*p = binary.NativeEndian.AppendUint16(*p, uint16(offset))
	*p = binary.NativeEndian.AppendUint32(*p, uint32(imm))
}

// deviceProgram compiles rules: the last one that fits decides, so they are tried backwards.
func deviceProgram(rules []specs.LinuxDeviceCgroup) program {
	var p program
	p.add(opLoadWord, regType, regContext, ctxAccess, 0)
	p.add(opMoveReg, regAccess, regType, 0, 0)
	p.add(opAndImm, regType, 0, 0, 0xffff)
	p.add(opShiftImm, regAccess, 0, 0, 16)
	p.add(opLoadWord, regMajor, regContext, ctxMajor, 0)
	p.add(opLoadWord, regMinor, regContext, ctxMinor, 0)
	for _, r := range slices.Backward(rules) {
		if p.rule(r) {
			return p // the kernel refuses programs with code that is never reached
		}
	}
	p.add(opMoveImm, regResult, 0, 0, 0)
	p.add(opExit, 0, 0, 0, 0)
	return p
}

// rule adds one rule, which exits the program or falls through; always tells that it exits.
func (p *program) rule(r specs.LinuxDeviceCgroup) (always bool) {
	var body program
	allow := int32(0)
	if r.Allow {
		allow = 1
	}
	body.add(opMoveImm, regResult, 0, 0, allow)
	body.add(opExit, 0, 0, 0, 0)
	// Each test jumps over what follows it when it does not fit, so build from the end.
	test := func(pre program, op, dst, src int, imm int32) {
		t := append(program(nil), pre...)
		t.add(op, dst, src, int16(len(body)/8), imm)
		body = append(t, body...)
	}
	if r.Minor != nil && *r.Minor >= 0 {
		test(nil, opNotEqualImm, regMinor, 0, int32(*r.Minor))
	}
	if r.Major != nil && *r.Major >= 0 {
		test(nil, opNotEqualImm, regMajor, 0, int32(*r.Major))
	}
	if bits := access(r.Access); bits != accMknod|accRead|accWrite {
		var pre program // asked for nothing beyond the rule's access?
		pre.add(opMoveReg, regWork, regAccess, 0, 0)
		pre.add(opAndImm, regWork, 0, 0, bits)
		test(pre, opNotEqualReg, regWork, regAccess, 0)
	}
	switch r.Type {
	case "b":
		test(nil, opNotEqualImm, regType, 0, devBlock)
	case "c":
		test(nil, opNotEqualImm, regType, 0, devChar)
	}
	*p = append(*p, body...)
	return len(body) == 2*8
}

func access(s string) int32 {
	var bits int32
	for c, bit := range map[string]int32{"m": accMknod, "r": accRead, "w": accWrite} {
		if strings.Contains(s, c) {
			bits |= bit
		}
	}
	return bits
}

// attachDeviceFilter puts the rules on a version 2 folder. The kernel keeps the program as long as
// the folder is there.
func attachDeviceFilter(folder string, rules []specs.LinuxDeviceCgroup) error {
	prog, err := loadProgram(deviceProgram(rules))
	if err != nil {
		return fmt.Errorf("loading the device filter: %w", err)
	}
	defer unix.Close(prog)
	dir, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("attaching the device filter: %w", err)
	}
	defer unix.Close(dir)
	attr := struct{ target, prog, kind, flags, replace uint32 }{
		uint32(dir), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0,
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil { //nolint:gosec // the kernel takes an address
		return fmt.Errorf("attaching the device filter: %w", err)
	}
	return nil
}

func loadProgram(p program) (int, error) {
	license := []byte("Apache\x00")
	attr := struct {
		kind, count             uint32
		code, license           uint64
		logLevel, logSize       uint32
		logBuf                  uint64
		kernVersion, flags      uint32
		name                    [16]byte
		ifindex, expectedAttach uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(p) / 8),
		code: uint64(uintptr(unsafe.Pointer(&p[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))), //nolint:gosec // the kernel takes addresses
		expectedAttach: unix.BPF_CGROUP_DEVICE,
	}
	copy(attr.name[:15], "ebb_device")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)) //nolint:gosec // the kernel takes an address
	runtime.KeepAlive(p)
	runtime.KeepAlive(license)
	return fd, err
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

package seccomp

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ask runs a compiled filter for one call. The virtual machine reads big endian, the kernel native:
// so the data is laid out word by word.
func ask(t *testing.T, f Filter, archID, number uint32, args ...uint64) uint32 {
	t.Helper()
	var raw []bpf.RawInstruction
	for p := f.Program; len(p) > 0; p = p[8:] {
		raw = append(raw, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(p), Jt: p[2], Jf: p[3], K: binary.NativeEndian.Uint32(p[4:])})
	}
	code, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions that do not exist")
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], number)
	binary.BigEndian.PutUint32(data[offArch:], archID)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestCompareHoldsOver64Bits(t *testing.T) {
	const big = uint64(5)<<32 | 7
	values := []uint64{0, 6, 7, 8, 4<<32 | 9, 5 << 32, big - 1, big, big + 1, 5<<32 | 0xffffffff, 6 << 32, ^uint64(0)}
	for op, holds := range map[specs.LinuxSeccompOperator]func(v uint64) bool{
		specs.OpEqualTo:      func(v uint64) bool { return v == big },
		specs.OpNotEqual:     func(v uint64) bool { return v != big },
		specs.OpGreaterThan:  func(v uint64) bool { return v > big },
		specs.OpGreaterEqual: func(v uint64) bool { return v >= big },
		specs.OpLessThan:     func(v uint64) bool { return v < big },
		specs.OpLessEqual:    func(v uint64) bool { return v <= big },
		specs.OpMaskedEqual:  func(v uint64) bool { return v&big == 3 },
	} {
		t.Run(string(op), func(t *testing.T) {
			f, err := Compile(&specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{
					Names: []string{"read"}, Action: specs.ActErrno,
					Args: []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}, {Index: 2, Value: big, ValueTwo: 3, Op: op}},
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			a := native()[own()]
			number := uint32(a.names["read"])
			for _, v := range values {
				want := uint32(unix.SECCOMP_RET_ALLOW)
				if holds(v) {
					want = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
				}
				if got := ask(t, f, a.id, number, 1, 0, v); got != want {
					t.Errorf("%#x: got %#x, want %#x", v, got, want)
				}
				if got := ask(t, f, a.id, number, 2, 0, v); got != unix.SECCOMP_RET_ALLOW {
					t.Errorf("%#x with another first argument: got %#x", v, got)
				}
			}
		})
	}
}

func TestDefaultProfileAnswers(t *testing.T) {
	const allow, refuse, missing = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	plain, admin := compileDefault(t), compileDefault(t, "CAP_SYS_ADMIN")
	names := native()[own()].names
	for name, row := range map[string]struct {
		filter Filter
		call   string
		args   []uint64
		want   uint32
	}{
		"reading is allowed":                           {plain, "read", nil, allow},
		"executing is allowed":                         {plain, "execve", nil, allow},
		"mounting is refused":                          {plain, "mount", nil, refuse},
		"mounting is allowed to administrators":        {admin, "mount", nil, allow},
		"a thread is allowed":                          {plain, "clone", []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow},
		"a user namespace is refused":                  {plain, "clone", []uint64{unix.CLONE_NEWUSER}, refuse},
		"a user namespace is allowed to administrator": {admin, "clone", []uint64{unix.CLONE_NEWUSER}, allow},
		"clone3 looks missing":                         {plain, "clone3", nil, missing},
		"keys are refused":                             {plain, "add_key", nil, refuse},
		"AF_VSOCK is refused":                          {plain, "socket", []uint64{unix.AF_VSOCK}, refuse},
		"internet sockets are allowed":                 {plain, "socket", []uint64{unix.AF_INET}, allow},
	} {
		t.Run(name, func(t *testing.T) {
			n, ok := names[row.call]
			if !ok {
				t.Fatalf("no call %s", row.call)
			}
			if got := ask(t, row.filter, native()[own()].id, uint32(n), row.args...); got != row.want {
				t.Errorf("got %#x, want %#x", got, row.want)
			}
		})
	}
	if got := ask(t, plain, native()[own()].id, 100_000); got != missing {
		t.Errorf("a call of the future: got %#x", got)
	}
	if got := ask(t, plain, 0x1234, 0); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another architecture: got %#x", got)
	}
	if runtime.GOARCH == "amd64" {
		if got := ask(t, plain, native()[own()].id, x32Bit|uint32(names["read"])); got != allow {
			t.Errorf("read by the x32 ABI: got %#x", got)
		}
		if got := ask(t, plain, native()[own()].id, x32Bit|uint32(names["mount"])); got != refuse {
			t.Errorf("mount by the x32 ABI: got %#x", got)
		}
	}
	t.Logf("%d instructions", len(plain.Program)/8)
}

func compileDefault(t *testing.T, capabilities ...string) Filter {
	t.Helper()
	profile, err := Default(capabilities)
	if err != nil {
		t.Fatal(err)
	}
	var c Compiler
	f, err := c.Compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCompileRefusesWhatItCannotDo(t *testing.T) {
	for name, profile := range map[string]specs.LinuxSeccomp{
		"a notification":      {DefaultAction: specs.ActNotify},
		"a listener":          {DefaultAction: specs.ActAllow, ListenerPath: "/x"},
		"an unknown flag":     {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"an unknown operator": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "X"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Compile(&profile); !errors.Is(err, ErrUnsupported) {
				t.Errorf("got %v", err)
			}
		})
	}
}

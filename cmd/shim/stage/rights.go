package stage

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// maxPasswd bounds how much of an image's user list is read.
const maxPasswd = 1 << 20

// restrict changes to the program's user and leaves it only its capabilities. All calls are raw,
// for this thread alone: it is the one that becomes the program.
func (s *stager) restrict(p wire.Process) error {
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("setting no_new_privs: %w", err)
		}
	} else if err := filter(p); err != nil { // needs CAP_SYS_ADMIN, so before it goes
		return err
	}
	if err := dropBounding(p.Bounding); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %w", err)
	}
	if err := changeUser(p); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("letting go of capabilities: %w", err)
	}
	return setCapabilities(p)
}

func changeUser(p wire.Process) error {
	var first unsafe.Pointer
	if len(p.Groups) > 0 {
		first = unsafe.Pointer(&p.Groups[0]) //nolint:gosec // the kernel takes an address
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(first), 0); e != 0 {
		return fmt.Errorf("setting groups: %w", e)
	}
	gid, uid := uintptr(p.GID), uintptr(p.UID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("changing to group %d: %w", p.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Errorf("changing to user %d: %w", p.UID, e)
	}
	return nil
}

func dropBounding(keep uint64) error {
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err == unix.EINVAL {
			return nil // past the last one this kernel knows
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

func setCapabilities(p wire.Process) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		shift := 32 * i
		data[i] = unix.CapUserData{
			Effective:   uint32(p.Effective >> shift),
			Permitted:   uint32(p.Permitted >> shift),
			Inheritable: uint32(p.Inheritable >> shift),
		}
	}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	for c := range 64 {
		if p.Ambient&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raising ambient capability %d: %w", c, err)
		}
	}
	return nil
}

// filter installs the compiled seccomp program for this thread.
func filter(p wire.Process) error {
	if len(p.Seccomp) == 0 {
		return nil
	}
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	program := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&p.Seccomp[0])), len(p.Seccomp)/size) //nolint:gosec // the bytes are instructions
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.SeccompFlag), uintptr(unsafe.Pointer(&prog))) //nolint:gosec // the kernel takes an address
	if e != 0 {
		return fmt.Errorf("installing the seccomp filter: %w", e)
	}
	return nil
}

// withHome adds HOME from the image's user list when the environment has none.
func withHome(env []string, uid uint32) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(slices.Clip(env), "HOME="+homeOf(uid))
}

func homeOf(uid uint32) string {
	f, err := os.OpenFile("/etc/passwd", os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
	if err != nil {
		return "/"
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return "/"
	}
	buf := make([]byte, min(st.Size(), maxPasswd))
	n, _ := f.Read(buf) // what could not be read does not name a home
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.SplitSeq(string(buf[:n]), "\n") {
		f := strings.Split(line, ":")
		if len(f) >= 6 && f[2] == want && f[5] != "" {
			return f[5]
		}
	}
	return "/"
}

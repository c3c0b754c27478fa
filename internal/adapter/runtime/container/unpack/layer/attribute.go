package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describe gives a file or folder its owner, mode and attributes, in this order: a change of owner
// clears set-user-ID and capabilities.
func describe(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return named("chown", h.Name, err)
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return named("chmod", h.Name, err)
	}
	for record, value := range h.PAXRecords {
		attribute, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || !kept(attribute) {
			continue
		}
		err := unix.Fsetxattr(fd, attribute, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return named("setxattr "+attribute, h.Name, err)
		}
	}
	return nil
}

// kept says whether an attribute belongs to the image. What overlayfs and security modules of the
// host read ("trusted.*", "security.selinux") is not the image's to say.
func kept(attribute string) bool {
	switch {
	case attribute == "security.capability":
		return true
	case strings.HasPrefix(attribute, "system.posix_acl_"):
		return true
	case strings.HasPrefix(attribute, "user.overlay."):
		return false
	}
	return strings.HasPrefix(attribute, "user.")
}

func setXattr(f *os.File, attribute string, value []byte) error {
	// Handles for resolution only (O_PATH) refuse fsetxattr, their path under /proc does not.
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	return named("setxattr "+attribute, f.Name(), unix.Setxattr(path, attribute, value, 0))
}

func setTime(parent *os.File, base string, at time.Time) error {
	spec, err := unix.TimeToTimespec(at)
	if err != nil {
		return named("utimes", base, err)
	}
	return named("utimes", base, unix.UtimesNanoAt(int(parent.Fd()), base, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW))
}

func openAt(parent *os.File, base string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), base, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, named("open", base, err)
	}
	return os.NewFile(uintptr(fd), base), nil
}

func named(operation, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: operation, Path: name, Err: err}
}

// closeFile closes what nothing was written to, or what is synced as a whole later: there is nothing
// an error could say.
func closeFile(f *os.File) { _ = f.Close() }

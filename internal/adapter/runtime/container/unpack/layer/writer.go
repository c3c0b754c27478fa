package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."     // aufs's own bookkeeping
	whiteoutOpaque = ".wh..wh..opq" // the folder hides all below it
	opaqueXattr    = "trusted.overlay.opaque"
	xattrRecord    = "SCHILY.xattr."
)

// writer puts entries under root. One goroutine uses it, and nobody else changes the folder.
type writer struct {
	root   *os.File
	limits Limits
	report Report
	buffer []byte
	// parent is the folder of the entry before, which most entries share.
	parent     *os.File
	parentPath string
	// folders get their times last, since writing into one changes them.
	folders map[string]time.Time
}

func newWriter(dir string, limits Limits) (*writer, error) {
	root, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	return &writer{root: root, limits: limits, buffer: make([]byte, 256<<10), folders: map[string]time.Time{}}, nil
}

func (w *writer) close() {
	w.leave()
	closeFile(w.root)
}

// leave forgets the folder at hand; needed whenever a folder may have been removed or replaced.
func (w *writer) leave() {
	if w.parent != nil {
		closeFile(w.parent)
		w.parent, w.parentPath = nil, ""
	}
}

func (w *writer) all(archive *tar.Reader) error {
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading layer: %w", err)
		}
		w.report.Entries++
		if w.limits.Entries > 0 && w.report.Entries > w.limits.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, w.limits.Entries)
		}
		if err := w.entry(h, archive); err != nil {
			return fmt.Errorf("unpacking %q: %w", h.Name, err)
		}
	}
}

func (w *writer) entry(h *tar.Header, content io.Reader) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if name == "/" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is a folder", ErrHostile)
		}
		w.folders[name] = entryTime(h)
		return describe(int(w.root.Fd()), h)
	}
	folder, base := path.Split(name)
	parent, err := w.enter(folder)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return w.whiteout(parent, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return w.folder(parent, name, h)
	case tar.TypeReg, '\x00', tar.TypeGNUSparse, tar.TypeCont:
		return w.file(parent, base, h, content)
	case tar.TypeSymlink:
		return w.symlink(parent, base, h)
	case tar.TypeLink:
		return w.link(base, folder, h)
	case tar.TypeFifo:
		return w.fifo(parent, base, h)
	case tar.TypeChar, tar.TypeBlock:
		w.report.Devices++
		return nil
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("unknown entry type %q", h.Typeflag)
}

// inside turns an entry's name into a clean path below "/".
func inside(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", ErrHostile
		}
	}
	if strings.ContainsRune(name, 0) {
		return "", ErrHostile
	}
	return path.Clean("/" + name), nil
}

// enter opens a folder below root, making what is missing. Links on the way are followed as if root
// were "/".
func (w *writer) enter(folder string) (*os.File, error) {
	if w.parent != nil && w.parentPath == folder {
		return w.parent, nil
	}
	handle, err := pathrs.MkdirAllHandle(w.root, folder, 0o755)
	if err != nil {
		// Perhaps a link on the way points to a folder that only a lower layer has. Where it leads is
		// made here then, which is safe to work out by name: nobody else changes the links.
		target, err := securejoin.SecureJoin(w.root.Name(), folder)
		if err != nil {
			return nil, err
		}
		if handle, err = pathrs.MkdirAllHandle(w.root, strings.TrimPrefix(target, w.root.Name()), 0o755); err != nil {
			return nil, err
		}
	}
	w.leave()
	w.parent, w.parentPath = handle, folder
	return handle, nil
}

// whiteout hides what lower layers have under a name, or everything they have in the folder.
func (w *writer) whiteout(parent *os.File, base string) error {
	if base == whiteoutOpaque {
		return setXattr(parent, opaqueXattr, []byte("y"))
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return ErrHostile
	}
	err := unix.Mknodat(int(parent.Fd()), hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return named("mknod", hidden, err)
	}
	// The layer has the name itself: then it hides only what is below, and a folder must say so.
	dir, err := openAt(parent, hidden, unix.O_DIRECTORY)
	if err != nil {
		return nil // a file hides what is below by being there
	}
	defer closeFile(dir)
	return setXattr(dir, opaqueXattr, []byte("y"))
}

func (w *writer) folder(parent *os.File, name string, h *tar.Header) error {
	base := path.Base(name)
	opaque := false
	if err := unix.Mkdirat(int(parent.Fd()), base, 0o700); err != nil {
		if !errors.Is(err, unix.EEXIST) {
			return named("mkdir", base, err)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return named("stat", base, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			opaque = st.Mode&unix.S_IFMT == unix.S_IFCHR
			if err := w.remove(parent, base); err != nil {
				return err
			}
			if err := unix.Mkdirat(int(parent.Fd()), base, 0o700); err != nil {
				return named("mkdir", base, err)
			}
		}
	}
	dir, err := openAt(parent, base, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer closeFile(dir)
	if opaque {
		if err := setXattr(dir, opaqueXattr, []byte("y")); err != nil {
			return err
		}
	}
	w.folders[name] = entryTime(h)
	return describe(int(dir.Fd()), h)
}

func (w *writer) file(parent *os.File, base string, h *tar.Header, content io.Reader) error {
	w.report.Bytes += h.Size
	if w.limits.Bytes > 0 && w.report.Bytes > w.limits.Bytes {
		return ErrTooLarge
	}
	if err := w.vacate(parent, base); err != nil {
		return err
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return named("create", base, err)
	}
	f := os.NewFile(uintptr(fd), base)
	defer closeFile(f)
	// The wrapper keeps io.CopyBuffer from choosing a smaller buffer of its own.
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, content, w.buffer); err != nil {
		return err
	}
	if err := describe(fd, h); err != nil {
		return err
	}
	return setTime(parent, base, entryTime(h))
}

func (w *writer) symlink(parent *os.File, base string, h *tar.Header) error {
	if err := w.vacate(parent, base); err != nil {
		return err
	}
	if err := unix.Symlinkat(h.Linkname, int(parent.Fd()), base); err != nil {
		return named("symlink", base, err)
	}
	if err := unix.Fchownat(int(parent.Fd()), base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return named("chown", base, err)
	}
	return setTime(parent, base, entryTime(h))
}

// link makes a second name for a file of the same layer.
func (w *writer) link(base, folder string, h *tar.Header) error {
	target, err := inside(h.Linkname)
	if err != nil {
		return err
	}
	targetFolder, targetBase := path.Split(target)
	from, err := pathrs.OpenatInRoot(w.root, targetFolder)
	if err != nil {
		return fmt.Errorf("linking to %q: %w", h.Linkname, err)
	}
	defer closeFile(from)
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), targetBase, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("linking to %q: %w", h.Linkname, err)
	}
	parent, err := w.enter(folder)
	if err != nil {
		return err
	}
	var have unix.Stat_t
	err = unix.Fstatat(int(parent.Fd()), base, &have, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && have.Ino == st.Ino && have.Dev == st.Dev {
		return nil
	}
	if err := w.vacate(parent, base); err != nil {
		return err
	}
	if parent, err = w.enter(folder); err != nil {
		return err
	}
	return named("link", base, unix.Linkat(int(from.Fd()), targetBase, int(parent.Fd()), base, 0))
}

func (w *writer) fifo(parent *os.File, base string, h *tar.Header) error {
	if err := w.vacate(parent, base); err != nil {
		return err
	}
	if err := unix.Mknodat(int(parent.Fd()), base, unix.S_IFIFO|0o600, 0); err != nil {
		return named("mkfifo", base, err)
	}
	if err := unix.Fchownat(int(parent.Fd()), base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return named("chown", base, err)
	}
	if err := unix.Fchmodat(int(parent.Fd()), base, uint32(h.Mode&0o7777), 0); err != nil {
		return named("chmod", base, err)
	}
	return setTime(parent, base, entryTime(h))
}

// vacate makes way for an entry of the same name as an earlier one.
func (w *writer) vacate(parent *os.File, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return named("stat", base, err)
	}
	return w.remove(parent, base)
}

// remove deletes a name and what is in it. The entry's own folder stays open and valid.
func (w *writer) remove(parent *os.File, base string) error {
	gone := path.Join(w.parentPath, base)
	for folder := range w.folders {
		if folder == gone || strings.HasPrefix(folder, gone+"/") {
			delete(w.folders, folder)
		}
	}
	return os.RemoveAll("/proc/self/fd/" + strconv.Itoa(int(parent.Fd())) + "/" + base)
}

// finish sets the folders' times, deepest or not: setting one does not touch its parent's.
func (w *writer) finish() error {
	w.leave()
	for folder, at := range w.folders {
		dir, err := pathrs.OpenatInRoot(w.root, folder)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("dating %q: %w", folder, err)
		}
		err = setTime(dir, ".", at)
		closeFile(dir)
		if err != nil {
			return fmt.Errorf("dating %q: %w", folder, err)
		}
	}
	return nil
}

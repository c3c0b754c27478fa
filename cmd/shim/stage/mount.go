package stage

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// maxMountData is a page: more does not fit into the options of mount(2).
const maxMountData = 4000

// mountRoot makes the container's root.
func (s *stager) mountRoot() error {
	if err := MountLayers(s.plan.Root); err != nil {
		return err
	}
	var err error
	s.root, err = unix.Open(s.plan.Root.At, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the root: %w", err)
	}
	return nil
}

// MountLayers stacks the layers under the writable folder.
func MountLayers(r wire.Root) error {
	if len(r.Layers) == 0 {
		return errors.New("mounting the root: the image has no layers")
	}
	lower := make([]string, 0, len(r.Layers))
	for _, layer := range slices.Backward(r.Layers) { // overlayfs wants the highest first
		lower = append(lower, escape(layer))
	}
	data := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + escape(r.Upper) + ",workdir=" + escape(r.Work)
	var err error
	if len(data) <= maxMountData {
		err = unix.Mount("overlay", r.At, "overlay", 0, data)
	} else {
		err = mountManyLayers(r)
	}
	if err != nil {
		return fmt.Errorf("mounting the root of %d layers: %w", len(r.Layers), err)
	}
	return nil
}

// escape protects what overlayfs takes for separators.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// mountManyLayers gives the layers one by one, which kernels since 6.8 understand.
func mountManyLayers(r wire.Root) error {
	var opts []wire.Option
	for _, layer := range slices.Backward(r.Layers) {
		opts = append(opts, wire.Option{Key: "lowerdir+", Value: layer})
	}
	opts = append(opts, wire.Option{Key: "upperdir", Value: r.Upper}, wire.Option{Key: "workdir", Value: r.Work})
	fd, err := newFS("overlay", opts, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, r.At, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// newFS makes a mounted, not yet attached file system.
func newFS(kind string, options []wire.Option, attr uint64) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("opening file system %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if o.Value == "" {
			err = unix.FsconfigSetFlag(fs, o.Key)
		} else {
			err = unix.FsconfigSetString(fs, o.Key, o.Value)
		}
		if err != nil {
			return -1, fmt.Errorf("setting option %s of %s: %w", o.Key, kind, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("making file system %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return -1, fmt.Errorf("mounting file system %s: %w", kind, err)
	}
	return fd, nil
}

func (s *stager) mountAll() error {
	for _, m := range s.plan.Mounts {
		if err := s.mount(m); err != nil {
			return fmt.Errorf("mounting %s: %w", m.Target, err)
		}
	}
	return nil
}

func (s *stager) mount(m wire.Mount) error {
	if m.Seal {
		return s.seal(m)
	}
	var tree int
	var err error
	if m.Bind {
		tree, err = s.bindTree(m)
	} else {
		tree, err = newFS(m.Type, m.Options, m.Attr)
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	kernel := m.Type == "proc" || m.Type == "sysfs"
	if kernel { // an image must not send these elsewhere by a link
		err = s.plainFolder(m.Target)
		if err != nil {
			return err
		}
	}
	target, err := s.target(m.Target, m.Dir || !m.Bind)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if !kernel {
		if err := refuseProc(target); err != nil {
			return err
		}
	}
	return attach(tree, target)
}

// bindTree takes the next detached tree and gives it the wanted attributes.
func (s *stager) bindTree(m wire.Mount) (int, error) {
	tree, err := s.sourceTree(m)
	if err != nil {
		return -1, err
	}
	propagation := m.Propagation
	if propagation == 0 {
		propagation = unix.MS_PRIVATE
	}
	if propagation != unix.MS_SHARED { // shared is what the tree already is if its source is
		a := unix.MountAttr{Propagation: propagation}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
			return tree, fmt.Errorf("setting propagation: %w", err)
		}
	}
	if m.Attr == 0 {
		return tree, nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: m.Attr}); err != nil {
		return tree, fmt.Errorf("setting attributes: %w", err)
	}
	return tree, nil
}

func (s *stager) sourceTree(m wire.Mount) (int, error) {
	if m.From == "" {
		return s.take()
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, m.From, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", m.From, err)
	}
	return tree, nil
}

// seal sets attributes of a mount made before.
func (s *stager) seal(m wire.Mount) error {
	target, err := s.open(m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return unix.MountSetattr(target, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: m.Attr})
}

func attach(tree, target int) error {
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// refuseProc keeps mounts off /proc, where they could fake what the kernel tells.
func refuseProc(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if st.Type == unix.PROC_SUPER_MAGIC {
		return errors.New("mounts below /proc are not allowed")
	}
	return nil
}

// hide covers masked paths and makes others read-only.
func (s *stager) hide() error {
	for _, path := range s.plan.Masked {
		if err := s.mask(path); err != nil {
			return fmt.Errorf("masking %s: %w", path, err)
		}
	}
	for _, path := range s.plan.Readonly {
		if err := s.freeze(path); err != nil {
			return fmt.Errorf("making %s read-only: %w", path, err)
		}
	}
	return nil
}

func (s *stager) mask(path string) error {
	target, err := s.open(path, unix.O_PATH)
	if err != nil {
		return ignoreMissing(err)
	}
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	var tree int
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		tree, err = newFS("tmpfs", []wire.Option{{Key: "size", Value: "0"}, {Key: "nr_inodes", Value: "1"}}, unix.MOUNT_ATTR_RDONLY)
	} else {
		tree, err = s.cloneTree("/dev/null", 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, target)
}

func (s *stager) freeze(path string) error {
	tree, err := s.cloneTree(path, unix.AT_RECURSIVE)
	if err != nil {
		return ignoreMissing(err)
	}
	defer unix.Close(tree)
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
		return err
	}
	target, err := s.open(path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(tree, target)
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// cloneTree copies the mount at a path of the root.
func (s *stager) cloneTree(path string, flags uint) (int, error) {
	fd, err := s.open(path, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|flags)
}

// pivot makes the assembled root the process's root and lets go of the node's.
func (s *stager) pivot() error {
	if err := unix.Fchdir(s.root); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the node's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("entering the new root: %w", err)
	}
	if err := makeFolders(s.plan.Process.Cwd); err != nil {
		return err
	}
	if !s.plan.Root.Readonly {
		return nil
	}
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &a); err != nil {
		return fmt.Errorf("making the root read-only: %w", err)
	}
	return nil
}

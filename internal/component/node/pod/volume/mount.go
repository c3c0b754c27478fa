package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Mounts gives the bind mounts of one container. expand resolves subPathExpr.
func (m *Mounter) Mounts(pod *corev1.Pod, c *corev1.Container, r *Result, expand func(string) (string, error)) ([]specs.Mount, error) {
	mounts := make([]specs.Mount, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		source, ok := r.Paths[vm.Name]
		if !ok {
			return nil, fmt.Errorf("container %s mounts volume %s, which the pod does not have", c.Name, vm.Name)
		}
		sub := vm.SubPath
		if vm.SubPathExpr != "" {
			var err error
			if sub, err = expand(vm.SubPathExpr); err != nil {
				return nil, fmt.Errorf("subPathExpr of mount %s: %w", vm.MountPath, err)
			}
		}
		if sub != "" {
			target := filepath.Join(m.podDir(pod.UID), "subpaths", vm.Name, c.Name, strconv.Itoa(i))
			var err error
			if source, err = m.subPath(source, sub, target, fsGroup(pod)); err != nil {
				return nil, fmt.Errorf("subPath %q of volume %s: %w", sub, vm.Name, err)
			}
		}
		mounts = append(mounts, specs.Mount{
			Destination: destination(vm.MountPath), Type: "bind", Source: source, Options: options(vm, readOnly(pod, vm)),
		})
	}
	if len(c.VolumeDevices) > 0 {
		return nil, fmt.Errorf("block device %s: %w", c.VolumeDevices[0].Name, ErrUnsupported)
	}
	// Parents before children, whatever order the manifest has.
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return mounts, nil
}

func destination(path string) string {
	if !filepath.IsAbs(path) {
		return filepath.Join("/", path)
	}
	return filepath.Clean(path)
}

// readOnly tells whether a mount is one: because it says so, because its claim does, or because the
// node writes the volume and would lose what a container writes there.
func readOnly(pod *corev1.Pod, vm *corev1.VolumeMount) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != vm.Name {
			continue
		}
		if claim := v.PersistentVolumeClaim; claim != nil && claim.ReadOnly {
			return true
		}
		if v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil {
			return true
		}
	}
	return vm.ReadOnly
}

func options(vm *corev1.VolumeMount, readOnly bool) []string {
	opts := []string{"rbind"}
	propagation := corev1.MountPropagationNone
	if vm.MountPropagation != nil {
		propagation = *vm.MountPropagation
	}
	switch propagation {
	case corev1.MountPropagationHostToContainer:
		opts = append(opts, "rslave")
	case corev1.MountPropagationBidirectional:
		opts = append(opts, "rshared")
	default:
		opts = append(opts, "rprivate")
	}
	switch {
	case vm.ReadOnly && vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled:
		return append(opts, "ro", "rro")
	case readOnly:
		return append(opts, "ro")
	default:
		return append(opts, "rw")
	}
}

// subPath opens a path inside a volume without ever leaving it, whatever links the volume's users
// put there, and binds what it opened to target: a later change of the links changes nothing.
func (m *Mounter) subPath(root, sub, target string, group *int64) (string, error) {
	if filepath.IsAbs(sub) || slices.Contains(strings.Split(sub, "/"), "..") {
		return "", errors.New("must be a relative path without \"..\"")
	}
	handle, err := pathrs.OpenInRoot(root, sub)
	if errors.Is(err, os.ErrNotExist) {
		handle, err = makeIn(root, sub, group)
	}
	if err != nil {
		return "", err
	}
	defer handle.Close()
	if !m.CanMount {
		return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(handle.Fd())))
	}
	info, err := handle.Stat()
	if err != nil {
		return "", err
	}
	return target, bind(handle, info.IsDir(), target)
}

// makeIn makes the missing folders with the volume's own mode and group.
func makeIn(root, sub string, group *int64) (*os.File, error) {
	base, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	info, err := base.Stat()
	if err != nil {
		return nil, err
	}
	handle, err := pathrs.MkdirAllHandle(base, sub, info.Mode().Perm())
	if err != nil {
		return nil, err
	}
	// The umask narrowed the mode of what was made.
	if err = handle.Chmod(info.Mode()); err == nil && group != nil {
		err = handle.Chown(-1, int(*group))
	}
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return handle, nil
}

func bind(handle *os.File, isDir bool, target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
		!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	if isDir {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
			return err
		}
		f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	source := "/proc/self/fd/" + strconv.Itoa(int(handle.Fd()))
	return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
}

// unmountBelow takes down every mount under dir, the deepest first.
func unmountBelow(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	scan := bufio.NewScanner(f)
	scan.Buffer(make([]byte, 64<<10), 1<<20)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if strings.HasPrefix(point, real+"/") {
			points = append(points, point)
		}
	}
	if err := scan.Err(); err != nil {
		return err
	}
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
	return nil
}

// unescape undoes the kernel's octal escapes of spaces, tabs, newlines and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

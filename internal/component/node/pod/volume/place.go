package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	helper "k8s.io/component-helpers/resource"
)

// emptyDir makes a scratch folder all users may write to.
func (m *Mounter) emptyDir(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // whoever the pod runs as writes here
		return err
	}
	switch e.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		if m.CanMount {
			if err := mountTmpfs(pod, e, dir); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("medium %q: %w", e.Medium, ErrUnsupported)
	}
	group := fsGroup(pod)
	mode := os.FileMode(0o777)
	if group != nil {
		mode |= os.ModeSetgid
	}
	return errors.Join(ownDir(dir, group), os.Chmod(dir, mode))
}

func mountTmpfs(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource, dir string) error {
	mounted, err := isMountPoint(dir)
	if err != nil || mounted {
		return err
	}
	size := int64(0)
	if e.SizeLimit != nil {
		size = e.SizeLimit.Value()
	}
	limits := helper.PodLimits(pod, helper.PodResourcesOptions{})
	if limit := limits.Memory().Value(); limit > 0 && (size == 0 || limit < size) {
		size = limit
	}
	options := ""
	if size > 0 {
		options = "size=" + strconv.FormatInt(size, 10)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting memory volume: %w", err)
	}
	return nil
}

func isMountPoint(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &above)); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// hostPath checks or makes what the volume's type asks for.
func hostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	stat, err := os.Stat(h.Path)
	if errors.Is(err, os.ErrNotExist) {
		switch kind { //nolint:exhaustive // the other types make nothing
		case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate: // unset makes a folder, as the runtimes do
			return os.MkdirAll(h.Path, 0o755) //nolint:gosec // the mode Kubernetes defines
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_WRONLY, 0o644) // the mode Kubernetes defines
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %w", err)
	}
	if !isKind(stat.Mode(), kind) {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, kind)
	}
	return nil
}

func isKind(mode fs.FileMode, kind corev1.HostPathType) bool {
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return mode.IsRegular()
	case corev1.HostPathSocket:
		return mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		return mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	case corev1.HostPathUnset:
	}
	return true
}

// claim finds the folder of a bound persistent volume.
func (m *Mounter) claim(ctx context.Context, pod *corev1.Pod, name string) (string, error) {
	pv, err := m.Claims.Volume(ctx, pod, name)
	if err != nil {
		return "", err
	}
	if pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock {
		return "", fmt.Errorf("block volume %s: %w", pv.Name, ErrUnsupported)
	}
	var path string
	switch {
	case pv.Spec.Local != nil:
		path = pv.Spec.Local.Path
	case pv.Spec.HostPath != nil:
		path = pv.Spec.HostPath.Path
		if err := hostPath(pv.Spec.HostPath); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("persistent volume %s: %w", pv.Name, ErrUnsupported)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("persistent volume %s: %w", pv.Name, err)
	}
	if group := fsGroup(pod); group != nil && pv.Spec.HostPath == nil {
		policy := pod.Spec.SecurityContext.FSGroupChangePolicy
		if err := giveTo(path, *group, policy); err != nil {
			return "", fmt.Errorf("giving volume %s to group %d: %w", pv.Name, *group, err)
		}
	}
	return path, nil
}

// giveTo hands a whole tree to a group; with OnRootMismatch only when its root is not the group's yet.
func giveTo(root string, group int64, policy *corev1.PodFSGroupChangePolicy) error {
	if policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch {
		var st unix.Stat_t
		if err := unix.Stat(root, &st); err != nil {
			return err
		}
		if int64(st.Gid) == group && st.Mode&unix.S_ISGID != 0 && st.Mode&0o070 == 0o070 {
			return nil
		}
	}
	// Names are resolved below the root only: links that the volume's users put there lead nowhere.
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	return fs.WalkDir(tree.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := tree.Lchown(path, -1, int(group)); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		mode := info.Mode().Perm() | 0o660
		if d.IsDir() {
			mode |= 0o070 | os.ModeSetgid
		}
		return tree.Chmod(path, mode)
	})
}

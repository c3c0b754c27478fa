// Package security decides what a container's process may do: its user and groups, capabilities,
// system calls and the parts of /proc and /sys it sees.
package security

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// ErrConfig marks a security setting that cannot be honoured; the container must not start.
var ErrConfig = errors.New("security context")

// maxLine bounds a line of /etc/passwd and /etc/group, which come from the image.
const maxLine = 1 << 20

// Identity is who a container's process is.
type Identity struct {
	specs.User
	Home string // "/" where the image's passwd file does not say
}

// User finds who the container runs as: the pod's settings before the image's USER, names looked up
// in the image's own /etc/passwd and /etc/group. rootFS are the image's layers, lowest first.
func User(pod *corev1.Pod, c *corev1.Container, imageUser string, rootFS []string) (Identity, error) {
	podSC, sc := contexts(pod, c)
	imageUser, imageGroup, _ := strings.Cut(imageUser, ":")
	if err := nonRoot(podSC, sc, imageUser); err != nil {
		return Identity{}, err
	}
	name, group := imageUser, imageGroup
	if uid := firstOf(sc.RunAsUser, podSC.RunAsUser); uid != nil {
		// A chosen user leaves the image's group behind, as the container runtimes do.
		name, group = strconv.FormatInt(*uid, 10), ""
	}
	if gid := firstOf(sc.RunAsGroup, podSC.RunAsGroup); gid != nil {
		group = strconv.FormatInt(*gid, 10)
	}
	files := layers(rootFS)
	user, login, err := files.user(name)
	if err != nil {
		return user, err
	}
	if group != "" {
		if user.GID, err = files.group(group); err != nil {
			return user, err
		}
	}
	strict := podSC.SupplementalGroupsPolicy != nil && *podSC.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict
	if login != "" && !strict {
		groups, err := files.groupsOf(login)
		if err != nil {
			return user, err
		}
		user.AdditionalGids = append(user.AdditionalGids, groups...)
	}
	for _, g := range podSC.SupplementalGroups {
		user.AdditionalGids = append(user.AdditionalGids, uint32(g))
	}
	if podSC.FSGroup != nil {
		user.AdditionalGids = append(user.AdditionalGids, uint32(*podSC.FSGroup))
	}
	user.AdditionalGids = append(user.AdditionalGids, user.GID)
	slices.Sort(user.AdditionalGids)
	user.AdditionalGids = slices.Compact(user.AdditionalGids)
	return user, nil
}

func contexts(pod *corev1.Pod, c *corev1.Container) (*corev1.PodSecurityContext, *corev1.SecurityContext) {
	podSC, sc := pod.Spec.SecurityContext, c.SecurityContext
	if podSC == nil {
		podSC = &corev1.PodSecurityContext{}
	}
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	return podSC, sc
}

func firstOf[T any](values ...*T) *T {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

func nonRoot(podSC *corev1.PodSecurityContext, sc *corev1.SecurityContext, imageUser string) error {
	must := firstOf(sc.RunAsNonRoot, podSC.RunAsNonRoot)
	if must == nil || !*must {
		return nil
	}
	if uid := firstOf(sc.RunAsUser, podSC.RunAsUser); uid != nil {
		if *uid == 0 {
			return fmt.Errorf("%w: container's runAsUser breaks non-root policy", ErrConfig)
		}
		return nil
	}
	uid, err := strconv.ParseInt(imageUser, 10, 64)
	switch {
	case imageUser == "" || (err == nil && uid == 0):
		return fmt.Errorf("%w: container has runAsNonRoot and image will run as root", ErrConfig)
	case err != nil:
		return fmt.Errorf("%w: container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", ErrConfig, imageUser)
	}
	return nil
}

// layers are an image's unpacked folders, lowest first.
type layers []string

// open finds a file of /etc in the topmost layer that has it.
func (l layers) open(path string) (io.ReadCloser, error) {
	for _, dir := range slices.Backward(l) {
		f, err := pathrs.OpenInRoot(dir, path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if !info.Mode().IsRegular() { // a whiteout: the file was deleted here
			return nil, errors.Join(os.ErrNotExist, f.Close())
		}
		readable, err := pathrs.Reopen(f, unix.O_RDONLY|unix.O_CLOEXEC)
		return readable, errors.Join(err, f.Close())
	}
	return nil, os.ErrNotExist
}

// each calls fn with the fields of every line until it returns false.
func (l layers) each(path string, fn func(fields []string) bool) error {
	f, err := l.open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the image's %s: %w", path, err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	scan.Buffer(make([]byte, 4096), maxLine)
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if !fn(strings.Split(line, ":")) {
			return nil
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("reading the image's %s: %w", path, err)
	}
	return nil
}

// user looks up a name or number; login is the name found, "" where there is none.
func (l layers) user(name string) (user Identity, login string, err error) {
	if name == "" {
		name = "0"
	}
	number, numErr := strconv.ParseUint(name, 10, 31)
	user.Home = "/"
	err = l.each("etc/passwd", func(f []string) bool {
		if len(f) < 4 {
			return true
		}
		uid, errU := strconv.ParseUint(f[2], 10, 32)
		gid, errG := strconv.ParseUint(f[3], 10, 32)
		same := f[0] == name
		if numErr == nil {
			same = uid == number
		}
		if errors.Join(errU, errG) != nil || !same {
			return true
		}
		user.UID, user.GID, login = uint32(uid), uint32(gid), f[0]
		if len(f) >= 6 && f[5] != "" {
			user.Home = f[5]
		}
		return false
	})
	if err != nil || login != "" {
		return user, login, err
	}
	if numErr != nil {
		return user, "", fmt.Errorf("%w: unable to find user %s: no matching entries in passwd file", ErrConfig, name)
	}
	user.UID = uint32(number)
	return user, "", nil
}

func (l layers) group(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return uint32(n), nil
	}
	gid, found := uint32(0), false
	err := l.each("etc/group", func(f []string) bool {
		if len(f) >= 3 && f[0] == name {
			if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
				gid, found = uint32(n), true
			}
		}
		return !found
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: unable to find group %s: no matching entries in group file", ErrConfig, name)
	}
	return gid, err
}

func (l layers) groupsOf(login string) ([]uint32, error) {
	var out []uint32
	err := l.each("etc/group", func(f []string) bool {
		if len(f) >= 4 && slices.Contains(strings.Split(f[3], ","), login) {
			if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
				out = append(out, uint32(n))
			}
		}
		return true
	})
	return out, err
}

// Package volume makes a pod's volumes on this machine and keeps their contents current.
//
// Every volume is a folder below the pod's own (volumes/<name>), or a path elsewhere for hostPath
// and persistent volumes. Setup is safe to repeat: it is also how contents are refreshed.
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ErrUnsupported means this node cannot provide that kind of volume, now or ever.
var ErrUnsupported = errors.New("this node cannot provide such a volume")

// Objects reads what volumes are filled from.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Token is a service account's token for one pod.
type Token struct {
	Value   string
	Refresh time.Time // when a newer one should be fetched
}

// Tokens issues tokens bound to pods; a repeated call returns the same token until its refresh time.
type Tokens interface {
	Token(ctx context.Context, pod *corev1.Pod, audience string, expirationSeconds int64) (Token, error)
}

// Claims finds the persistent volume behind a claim.
type Claims interface {
	Volume(ctx context.Context, pod *corev1.Pod, claim string) (*corev1.PersistentVolume, error)
}

// Config says where volumes live and where their contents come from.
type Config struct {
	Dir     string // a folder per pod UID is made in it
	Objects Objects
	Tokens  Tokens
	Claims  Claims
	// Field and Resource resolve downward API references.
	Field    func(pod *corev1.Pod, path string) (string, error)
	Resource func(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error)
	// CanMount is false without the right to mount; memory-backed volumes are then plain folders.
	CanMount bool
}

// Mounter makes and removes volumes.
type Mounter struct{ Config }

// New returns a Mounter.
func New(c Config) *Mounter { return &Mounter{Config: c} }

// Result is what a pod's volumes came to.
type Result struct {
	Paths   map[string]string // volume name → folder or file on this machine
	Refresh time.Time         // when Setup should run again at the latest; zero for never
}

// Setup makes all volumes the pod's containers mount, or brings their contents up to date.
func (m *Mounter) Setup(ctx context.Context, pod *corev1.Pod) (*Result, error) {
	res := &Result{Paths: make(map[string]string, len(pod.Spec.Volumes))}
	if err := os.MkdirAll(m.podDir(pod.UID), 0o750); err != nil {
		return nil, fmt.Errorf("making volumes: %w", err)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards res and errs
		errs []error
	)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		one := func() {
			path, refresh, err := m.setup(ctx, pod, v)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("MountVolume.SetUp failed for volume %q: %w", v.Name, err))
				return
			}
			res.Paths[v.Name] = path
			res.Refresh = earlier(res.Refresh, refresh)
		}
		if len(pod.Spec.Volumes) == 1 {
			one()
		} else {
			wg.Go(one)
		}
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return res, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

func (m *Mounter) setup(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (path string, refresh time.Time, err error) {
	dir := filepath.Join(m.podDir(pod.UID), "volumes", v.Name)
	switch {
	case v.EmptyDir != nil:
		return dir, refresh, m.emptyDir(pod, v.EmptyDir, dir)
	case v.HostPath != nil:
		return v.HostPath.Path, refresh, hostPath(v.HostPath)
	case v.PersistentVolumeClaim != nil:
		path, err = m.claim(ctx, pod, v.PersistentVolumeClaim.ClaimName)
		return path, refresh, err
	case v.Ephemeral != nil:
		path, err = m.claim(ctx, pod, pod.Name+"-"+v.Name)
		return path, refresh, err
	}
	sources, err := m.sources(v)
	if err != nil {
		return "", refresh, err
	}
	files := payload{}
	for i := range sources {
		next, err := m.collect(ctx, pod, &sources[i], files)
		if err != nil {
			return "", refresh, err
		}
		refresh = earlier(refresh, next)
	}
	return dir, refresh, write(dir, files, fsGroup(pod))
}

// Teardown removes the pod's volumes; claims' and hostPath contents stay.
func (m *Mounter) Teardown(uid types.UID) error {
	dir := m.podDir(uid)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if m.CanMount {
		if err := unmountBelow(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing volumes: %w", err)
	}
	return nil
}

// Pods lists the UIDs that have folders here, to find those nobody knows any more.
func (m *Mounter) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	uids := make([]types.UID, 0, len(entries))
	for _, e := range entries {
		uids = append(uids, types.UID(e.Name()))
	}
	return uids, nil
}

// Release takes down the pod's mounts and keeps its files, for a pod that will run again later.
func (m *Mounter) Release(uid types.UID) error {
	if _, err := os.Lstat(m.podDir(uid)); !m.CanMount || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return unmountBelow(m.podDir(uid))
}

// Folder is a path in the pod's own folder, for the files that go with its containers.
func (m *Mounter) Folder(uid types.UID, elem ...string) string {
	return filepath.Join(append([]string{m.podDir(uid)}, elem...)...)
}

func (m *Mounter) podDir(uid types.UID) string { return filepath.Join(m.Dir, string(uid)) }

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

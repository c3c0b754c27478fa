package volume_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ebb.dev/ebb/internal/component/node/pod/volume"
)

// objects are config maps and secrets by name, the same in every namespace.
type objects map[string]map[string]string

func (o objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if data, ok := o[name]; ok {
		return &corev1.ConfigMap{Data: data}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	data, ok := o[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	s := &corev1.Secret{Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s, nil
}

// Token implements volume.Tokens.
func (objects) Token(_ context.Context, _ *corev1.Pod, audience string, _ int64) (volume.Token, error) {
	return volume.Token{Value: "token for " + audience, Refresh: time.Now().Add(time.Hour)}, nil
}

type claims map[string]*corev1.PersistentVolume

func (c claims) Volume(_ context.Context, _ *corev1.Pod, claim string) (*corev1.PersistentVolume, error) {
	if pv, ok := c[claim]; ok {
		return pv, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, claim)
}

func mounter(t *testing.T, o objects, c claims) *volume.Mounter {
	m := volume.New(volume.Config{
		Dir: t.TempDir(), Objects: o, Tokens: o, Claims: c, CanMount: os.Geteuid() == 0,
		Field:    func(p *corev1.Pod, path string) (string, error) { return p.Name + " " + path, nil },
		Resource: func(*corev1.Pod, *corev1.ResourceFieldSelector) (string, error) { return "42", nil },
	})
	t.Cleanup(func() {
		if err := m.Teardown("u"); err != nil {
			t.Error(err)
		}
	})
	return m
}

func podWith(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: corev1.PodSpec{Volumes: volumes}}
}

func setup(t *testing.T, m *volume.Mounter, p *corev1.Pod) *volume.Result {
	t.Helper()
	res, err := m.Setup(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func named(name string, s corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: s}
}

func configMap(name string, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}}
}

func TestContentsAreSwitchedAtOnce(t *testing.T) {
	o := objects{"settings": {"a": "1", "b": "2"}}
	m, p := mounter(t, o, nil), podWith(named("v", configMap("settings")))
	dir := setup(t, m, p).Paths["v"]
	if read(t, dir, "a") != "1" || read(t, dir, "b") != "2" {
		t.Fatal("wrong contents")
	}
	first, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	setup(t, m, p)
	if same, _ := os.Readlink(filepath.Join(dir, "..data")); same != first {
		t.Error("unchanged contents were written again")
	}
	o["settings"] = map[string]string{"a": "one", "c": "3"}
	setup(t, m, p)
	if read(t, dir, "a") != "one" || read(t, dir, "c") != "3" {
		t.Error("the change did not arrive")
	}
	if _, err := os.Lstat(filepath.Join(dir, "b")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a removed key is still there")
	}
	if _, err := os.Stat(filepath.Join(dir, first)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the former contents are still there")
	}
}

func TestModesItemsAndProjection(t *testing.T) {
	mode, own, group := int32(0o440), int32(0o400), int64(1234)
	yes := true
	o := objects{"settings": {"a": "1", "b": "2"}, "secret": {"k": "s"}}
	m := mounter(t, o, nil)
	p := podWith(named("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Items: []corev1.KeyToPath{{Key: "a", Path: "deep/er/a", Mode: &own}}}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "secret"}}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &yes}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "bank"}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
	}}}))
	res := setup(t, m, p)
	dir := res.Paths["v"]
	for file, want := range map[string]string{"deep/er/a": "1", "k": "s", "token": "token for bank", "name": "p metadata.name"} {
		if got := read(t, dir, file); got != want {
			t.Errorf("%s = %q", file, got)
		}
	}
	if res.Refresh.IsZero() {
		t.Error("a token volume wants no refresh")
	}
	for file, want := range map[string]os.FileMode{"deep/er/a": 0o400, "k": 0o440, "token": 0o440} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %o", file, info.Mode(), err, want)
		}
	}
	if os.Geteuid() != 0 {
		return // groups can be given by root only
	}
	p.UID = "u2"
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	t.Cleanup(func() { _ = m.Teardown("u2") })
	dir = setup(t, m, p).Paths["v"]
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "token"), &st); err != nil || st.Gid != 1234 || st.Mode&0o777 != 0o640 {
		t.Errorf("token with fsGroup: group %d, mode %o, %v", st.Gid, st.Mode, err)
	}
}

func TestWhatCannotBeMountedIsTold(t *testing.T) {
	m := mounter(t, objects{"settings": {}}, nil)
	directory := corev1.HostPathDirectory
	tests := map[string]struct {
		source corev1.VolumeSource
		want   string
		is     error
	}{
		"a missing config map":       {source: configMap("none"), want: `configmaps "none" not found`},
		"a missing key":              {source: configMap("settings", corev1.KeyToPath{Key: "x", Path: "x"}), want: "references non-existent config key: x"},
		"a host path that is absent": {source: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/does/not/exist", Type: &directory}}, want: "hostPath type check failed"},
		"a missing claim":            {source: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "none"}}, want: "not found"},
		"a kind nobody has here":     {source: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}, is: volume.ErrUnsupported},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := m.Setup(t.Context(), podWith(named("v", tc.source)))
			if err == nil || !strings.Contains(err.Error(), tc.want) || (tc.is != nil && !errors.Is(err, tc.is)) {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestEmptyDirsAndClaims(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting and giving files away need root")
	}
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	limit, group := resource.MustParse("1Mi"), int64(77)
	m := mounter(t, nil, claims{"data": {Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: data}}}}})
	p := podWith(named("scratch", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		named("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}),
		named("data", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	res := setup(t, m, p)
	if info, err := os.Stat(res.Paths["scratch"]); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("scratch: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(res.Paths["memory"], "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing past the limit of a memory volume: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(data, "kept"), &st); err != nil || st.Gid != 77 || st.Mode&0o777 != 0o660 {
		t.Errorf("the claim's file: group %d, mode %o, %v", st.Gid, st.Mode, err)
	}
	if err := m.Teardown("u"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(data, "kept")); err != nil {
		t.Error("the claim's contents went with the pod")
	}
}

func TestSubPathsStayInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("binding needs root")
	}
	m := mounter(t, objects{"settings": {"a": "1"}}, nil)
	p := podWith(named("scratch", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), named("settings", configMap("settings")))
	res := setup(t, m, p)
	if err := os.Symlink("/etc", filepath.Join(res.Paths["scratch"], "out")); err != nil {
		t.Fatal(err)
	}
	mounts := func(vm corev1.VolumeMount) (string, error) {
		list, err := m.Mounts(p, &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{vm}}, res, func(s string) (string, error) { return strings.ReplaceAll(s, "$(N)", "made"), nil })
		if err != nil {
			return "", err
		}
		return list[0].Source, nil
	}
	source, err := mounts(corev1.VolumeMount{Name: "settings", MountPath: "/a", SubPath: "a"})
	if err != nil || read(t, source) != "1" {
		t.Errorf("a key: %v", err)
	}
	source, err = mounts(corev1.VolumeMount{Name: "scratch", MountPath: "/m", SubPathExpr: "$(N)/deep"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "f"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(res.Paths["scratch"], "made/deep/f")); err != nil {
		t.Errorf("the folder was not made inside the volume: %v", err)
	}
	if source, err = mounts(corev1.VolumeMount{Name: "scratch", MountPath: "/o", SubPath: "out"}); err == nil {
		if _, err := os.Stat(filepath.Join(source, "passwd")); err == nil {
			t.Error("a link led out of the volume")
		}
	}
	if _, err := mounts(corev1.VolumeMount{Name: "scratch", MountPath: "/o", SubPath: "../x"}); err == nil {
		t.Error("\"..\" was accepted")
	}
}

func TestWhatTheNodeWritesIsReadOnly(t *testing.T) {
	m := mounter(t, objects{"settings": {"a": "1"}}, nil)
	claim := func(readOnly bool) corev1.VolumeSource {
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c", ReadOnly: readOnly}}
	}
	for name, c := range map[string]struct {
		source corev1.VolumeSource
		want   string
	}{
		"a config map":            {configMap("settings"), "ro"},
		"a secret":                {corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "settings"}}, "ro"},
		"a projected volume":      {corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}, "ro"},
		"facts about the pod":     {corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}, "ro"},
		"a read-only claim":       {claim(true), "ro"},
		"a claim":                 {claim(false), "rw"},
		"a scratch folder":        {corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, "rw"},
		"a folder of the machine": {corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}, "rw"},
	} {
		t.Run(name, func(t *testing.T) {
			container := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}
			list, err := m.Mounts(podWith(named("v", c.source)), container, &volume.Result{Paths: map[string]string{"v": "/x"}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(list[0].Options, c.want) {
				t.Errorf("options = %v, want %s", list[0].Options, c.want)
			}
		})
	}
}

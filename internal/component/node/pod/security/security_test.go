package security_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/component/node/pod/security"
)

// image makes two layers; the upper one has the passwd file that counts.
func image(t *testing.T) []string {
	t.Helper()
	lower, upper := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		lower + "/etc/passwd": "app:x:1:1::/old:/bin/sh\n",
		lower + "/etc/group":  "root:x:0:\nstaff:x:50:app,other\nextra:x:60:other\n",
		upper + "/etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return []string{lower, upper}
}

func ref[T any](v T) *T { return new(v) }

func TestUser(t *testing.T) {
	layers := image(t)
	type who struct {
		UID, GID uint32
		More     []uint32
		Home     string
	}
	tests := map[string]struct {
		image string
		pod   corev1.PodSecurityContext
		own   corev1.SecurityContext
		want  who
		err   bool
	}{
		"nobody said is root":            {want: who{0, 0, []uint32{0}, "/root"}},
		"a name of the image":            {image: "app", want: who{1000, 1001, []uint32{50, 1001}, "/home/app"}},
		"a number of the image":          {image: "1000", want: who{1000, 1001, []uint32{50, 1001}, "/home/app"}},
		"a number nobody has":            {image: "65532", want: who{65532, 0, []uint32{0}, "/"}},
		"user and group of the image":    {image: "app:staff", want: who{1000, 50, []uint32{50}, "/home/app"}},
		"the pod's user wins":            {image: "app", pod: corev1.PodSecurityContext{RunAsUser: new(int64(7)), RunAsGroup: new(int64(8))}, want: who{7, 8, []uint32{8}, "/"}},
		"the container's wins over that": {pod: corev1.PodSecurityContext{RunAsUser: new(int64(7))}, own: corev1.SecurityContext{RunAsUser: new(int64(9))}, want: who{9, 0, []uint32{0}, "/"}},
		"groups are added":               {image: "65532", pod: corev1.PodSecurityContext{FSGroup: new(int64(3)), SupplementalGroups: []int64{4}}, want: who{65532, 0, []uint32{0, 3, 4}, "/"}},
		"strict leaves the image's out":  {image: "app", pod: corev1.PodSecurityContext{SupplementalGroupsPolicy: ref(corev1.SupplementalGroupsPolicyStrict)}, want: who{1000, 1001, []uint32{1001}, "/home/app"}},
		"an unknown name":                {image: "ghost", err: true},
		"non-root refuses root":          {pod: corev1.PodSecurityContext{RunAsNonRoot: new(true)}, err: true},
		"non-root refuses a name":        {image: "app", pod: corev1.PodSecurityContext{RunAsNonRoot: new(true)}, err: true},
		"non-root refuses user zero":     {image: "1", own: corev1.SecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(0))}, err: true},
		"non-root takes a number":        {image: "1000", pod: corev1.PodSecurityContext{RunAsNonRoot: new(true)}, want: who{1000, 1001, []uint32{50, 1001}, "/home/app"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &tc.pod}}
			got, err := security.User(pod, &corev1.Container{SecurityContext: &tc.own}, tc.image, layers)
			if tc.err {
				if !errors.Is(err, security.ErrConfig) {
					t.Errorf("error = %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, who{got.UID, got.GID, got.AdditionalGids, got.Home}); diff != "" {
				t.Errorf("user (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	tests := map[string]struct {
		sc        *corev1.SecurityContext
		has, lack []string
		count     int
		err       bool
	}{
		"the usual set":      {count: 14, has: []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE"}, lack: []string{"CAP_SYS_ADMIN"}},
		"drop all, add one":  {sc: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}}}, count: 1, has: []string{"CAP_NET_BIND_SERVICE"}},
		"drop one":           {sc: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"cap_mknod"}}}, count: 13, lack: []string{"CAP_MKNOD"}},
		"add all, drop one":  {sc: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"ALL"}, Drop: []corev1.Capability{"SYS_ADMIN"}}}, count: 40, lack: []string{"CAP_SYS_ADMIN"}},
		"privileged has all": {sc: &corev1.SecurityContext{Privileged: new(true)}, count: 41, has: []string{"CAP_SYS_ADMIN"}},
		"an unknown name":    {sc: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"FLY"}}}, err: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := security.Capabilities(&corev1.Container{SecurityContext: tc.sc})
			if tc.err {
				if !errors.Is(err, security.ErrConfig) {
					t.Errorf("error = %v", err)
				}
				return
			}
			if err != nil || len(got.Bounding) != tc.count {
				t.Fatalf("%d capabilities, %v, want %d", len(got.Bounding), err, tc.count)
			}
			for _, c := range tc.has {
				if !slices.Contains(got.Effective, c) {
					t.Errorf("%s is missing", c)
				}
			}
			for _, c := range tc.lack {
				if slices.Contains(got.Effective, c) {
					t.Errorf("%s is there", c)
				}
			}
		})
	}
}

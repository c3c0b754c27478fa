package pod_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/node/pod"
	"ebb.dev/ebb/internal/component/node/pod/podtest"
)

const noDigest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"

// leasing is a bench with leases and how they should be.
func leasing(t *testing.T) (*bench, func(when string, want map[string]string)) {
	b, leases := newBench(t), &podtest.Leases{}
	b.host.Leases = leases
	return b, func(when string, want map[string]string) {
		t.Helper()
		if diff := cmp.Diff(want, leases.Leased(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("leases %s (-want +got):\n%s", when, diff)
		}
	}
}

func TestImagesAreLeasedWhileContainersAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, check := leasing(t)
		p := newPod(func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: "example.com/other"})
		})
		owner := "pod/" + string(p.UID) + "/"
		both := map[string]string{owner + "user": "example.com/hello" + noDigest, owner + "other": "example.com/other" + noDigest}
		m := b.start(p, nil)
		synctest.Wait()
		if !ready(m) {
			t.Error("the pod waits for its leases")
		}
		check("of a pod that has just started", nil)
		time.Sleep(2 * time.Second)
		check("of a running pod", both)

		b.runtime.End(p.UID, "user", 1) // restarted at once
		synctest.Wait()
		b.runtime.End(p.UID, "user", 1) // restarted later
		time.Sleep(2 * time.Second)
		check("between the runs of a container", both)
		time.Sleep(time.Minute)
		if taken := b.host.Leases.(*podtest.Leases).Taken(); taken != 2 {
			t.Errorf("leased %d times, want 2", taken)
		}

		changed := p.DeepCopy()
		changed.Spec.Containers[0].Image = "example.com/newer"
		m.Update(changed)
		time.Sleep(time.Minute)
		both[owner+"user"] = "example.com/newer" + noDigest
		check("after a change of image", both)

		m.Update(deleting(changed, 30))
		<-m.Finished()
		check("of a deleted pod", nil)
	})
}

func TestLeasesOverARestart(t *testing.T) {
	tests := map[string]struct {
		age  time.Duration // of the container when the node dies
		gone bool          // the machine died too and the pod does not run again
	}{
		"of a running container":            {age: time.Minute},
		"of one that had not leased so far": {age: time.Millisecond},
		"of one that is no more":            {age: time.Minute, gone: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, check := leasing(t)
				p := newPod(func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
				first := b.start(p, nil)
				time.Sleep(tc.age)
				first.Close()
				p = p.DeepCopy()
				p.Status = first.Status()
				list, err := b.runtime.List(t.Context())
				if err != nil || len(list) != 1 {
					t.Fatalf("list = %v, %v", list, err)
				}
				sandbox := &list[0]
				want := map[string]string{"pod/" + string(p.UID) + "/user": "example.com/hello" + noDigest}
				if tc.gone {
					sandbox, want = nil, nil
				}
				b.start(p, sandbox)
				time.Sleep(time.Minute)
				check("after a restart", want)
			})
		})
	}
}

func TestAQuickPodLeavesNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, check := leasing(t)
		p := newPod(func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
		m := b.start(p, nil)
		synctest.Wait()
		b.runtime.End(p.UID, "user", 0)
		<-m.Finished()
		time.Sleep(time.Minute)
		check("of a pod that is done", nil)
	})
}

func TestAPodRunsWithoutItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, check := leasing(t)
		b.host.Leases.(*podtest.Leases).Error = errors.New("disk full")
		m := b.start(newPod(nil), nil)
		time.Sleep(time.Minute)
		if !ready(m) {
			t.Errorf("status = %+v", m.Status())
		}
		check("that cannot be taken", nil)
	})
}

func TestLeasedBy(t *testing.T) {
	tests := map[string]struct {
		owner string
		want  types.UID
		ok    bool
	}{
		"a container's": {"pod/11111111-2222/user", "11111111-2222", true},
		"another's":     {"build/3", "", false},
		"half a name":   {"pod/11111111-2222", "11111111-2222", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if uid, ok := pod.LeasedBy(tc.owner); uid != tc.want || ok != tc.ok {
				t.Errorf("got %q, %v", uid, ok)
			}
		})
	}
}

func TestImagesInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := leasing(t)
		p := newPod(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "example.com/first"}}
		})
		m := b.start(p, nil)
		images := func() []string {
			t.Helper()
			list, err := m.Images(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(list)
			return slices.Compact(list)
		}
		synctest.Wait()
		want := []string{"example.com/first" + noDigest, "example.com/hello" + noDigest} // one runs, one waits
		if got := images(); !slices.Equal(got, want) {
			t.Errorf("in use: %v, want %v", got, want)
		}
		m.Update(deleting(p, 30))
		<-m.Finished()
		if got := images(); len(got) != 0 {
			t.Errorf("a pod that is over uses %v", got)
		}
	})
}

func TestAnImageThatWentIsPulledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.runtime.Refuse("user", errors.New("mounting its root: no such file or directory"))
		b.start(newPod(nil), nil)
		time.Sleep(time.Minute)
		if n := b.images.Pulls(); n != 0 {
			t.Errorf("pulled %d times what was there", n)
		}
		b.images.Fail(errors.New("gone from here, and the registry is away"))
		time.Sleep(10 * time.Minute)
		if b.images.Pulls() == 0 {
			t.Error("the container starts again and again with what is not there")
		}
	})
}

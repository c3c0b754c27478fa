package pod_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/node/pod"
)

// steps remembers what happened in which order.
type steps struct {
	mu   sync.Mutex // guards list
	list []string
}

func (s *steps) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, what)
}

func (s *steps) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.list...)
}

// slowDrain takes its time and writes down when it was done.
type slowDrain struct {
	steps *steps
	takes time.Duration
}

func (d slowDrain) Drain(ctx context.Context, _ types.UID) error {
	select {
	case <-time.After(d.takes):
		d.steps.add("drained")
	case <-ctx.Done():
		d.steps.add("drain cut")
	}
	return ctx.Err()
}

func deleting(p *corev1.Pod, grace int64) *corev1.Pod {
	p = p.DeepCopy()
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	return p
}

func TestTerminationDrainsThenHooksThenSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		order := &steps{}
		b.host.Drainer = slowDrain{order, 2 * time.Second}
		b.runtime.OnExec = func(_ string, args []string) (int, string, error) { order.add("hook " + args[0]); return 0, "", nil }
		p := newPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
				PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye"}}},
			}
		})
		var atEnd atomic.Bool // the node was told of the end when it was one
		b.host.Changed = func(m *pod.Pod, _ pod.Urgency) {
			select {
			case <-m.Finished():
				atEnd.Store(b.observer.Gone() == 1)
			default:
			}
		}
		m := b.start(p, nil)
		synctest.Wait()
		m.Update(deleting(p, 30))
		time.Sleep(time.Second)
		if last := b.observer.Last(); !last.Draining || last.Ready {
			t.Errorf("while draining the observer knows %+v", last)
		}
		if len(b.runtime.Signals()) > 0 {
			t.Error("signalled before the drain was over")
		}
		<-m.Finished()
		if diff := cmp.Diff([]string{"drained", "hook bye"}, order.all()); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"user:15"}, b.runtime.Signals()); diff != "" {
			t.Errorf("signals (-want +got):\n%s", diff)
		}
		synctest.Wait()
		if b.observer.Gone() != 1 || b.runtime.Sandboxes() != 0 {
			t.Error("something is left")
		}
		if !atEnd.Load() {
			t.Error("the node was not told of the end, or too early to let the object go")
		}
		if s := m.Status(); s.Phase != corev1.PodFailed || s.ContainerStatuses[0].State.Terminated == nil || s.ContainerStatuses[0].State.Terminated.ExitCode != 143 {
			t.Errorf("status = %+v", s)
		}
	})
}

func TestGraceEndsInKillAndCanShrink(t *testing.T) {
	tests := map[string]struct {
		shrink int64 // seconds, after 5 s; 0 for not
		want   time.Duration
	}{
		"the whole grace period":  {0, 30 * time.Second},
		"a shorter second delete": {3, 8 * time.Second},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.runtime.Stubborn["user"] = true
				p := newPod(nil)
				m := b.start(p, nil)
				synctest.Wait()
				begin := time.Now()
				m.Update(deleting(p, 30))
				if tc.shrink > 0 {
					time.Sleep(5 * time.Second)
					m.Update(deleting(p, tc.shrink))
				}
				<-m.Finished()
				if took := time.Since(begin); took < tc.want || took > tc.want+time.Second {
					t.Errorf("took %s, want %s", took, tc.want)
				}
				if diff := cmp.Diff([]string{"user:15", "user:9"}, b.runtime.Signals()); diff != "" {
					t.Errorf("signals (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestForceDeleteKillsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.runtime.Stubborn["user"] = true
		p := newPod(nil)
		m := b.start(p, nil)
		synctest.Wait()
		begin := time.Now()
		m.Update(deleting(p, 0))
		<-m.Finished()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestAdoptionKeepsAddressAndCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := newPod(nil)
		first := b.start(p, nil)
		synctest.Wait()
		b.runtime.End(p.UID, "user", 1)
		time.Sleep(time.Second)
		first.Close() // the node dies; the container lives
		p = p.DeepCopy()
		p.Status = first.Status()
		list, err := b.runtime.List(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("list = %v, %v", list, err)
		}
		second := b.start(p, &list[0])
		synctest.Wait()
		before, after := first.Status(), second.Status()
		if diff := cmp.Diff(before.ContainerStatuses, after.ContainerStatuses); diff != "" {
			t.Errorf("containers (-before +after):\n%s", diff)
		}
		if before.PodIP != after.PodIP || !ready(second) {
			t.Errorf("address %s became %s, ready %v", before.PodIP, after.PodIP, ready(second))
		}
		if n := len(b.runtime.Started()); n != 2 {
			t.Errorf("%d containers were started, want 2", n)
		}
	})
}

func TestRebootStartsContainersAgain(t *testing.T) {
	tests := map[string]struct {
		policy corev1.RestartPolicy
		phase  corev1.PodPhase
	}{
		"always runs again": {corev1.RestartPolicyAlways, corev1.PodRunning},
		"never has failed":  {corev1.RestartPolicyNever, corev1.PodFailed},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				p := newPod(func(p *corev1.Pod) { p.Spec.RestartPolicy = tc.policy })
				first := b.start(p, nil)
				synctest.Wait()
				first.Close()
				p = p.DeepCopy()
				p.Status = first.Status()
				again := newBench(t) // nothing survived
				second := again.start(p, nil)
				time.Sleep(time.Second)
				s := second.Status()
				if s.Phase != tc.phase {
					t.Errorf("phase = %s, want %s", s.Phase, tc.phase)
				}
				if tc.phase == corev1.PodRunning && (s.ContainerStatuses[0].RestartCount != 1 || s.ContainerStatuses[0].LastTerminationState.Terminated == nil) {
					t.Errorf("container = %+v", s.ContainerStatuses[0])
				}
			})
		})
	}
}

func TestHaltKeepsThePodForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := newPod(nil)
		m := b.start(p, nil)
		synctest.Wait()
		m.Halt()
		<-m.Finished()
		s := m.Status()
		if s.Phase != corev1.PodRunning || ready(m) {
			t.Errorf("phase %s, ready %v", s.Phase, ready(m))
		}
		p = p.DeepCopy()
		p.Status = s
		next := b.start(p, nil)
		time.Sleep(time.Second)
		if !ready(next) || next.Status().ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("after the next start: %+v", next.Status().ContainerStatuses)
		}
	})
}

func TestAdoptionKeepsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := newPod(nil)
		first := b.start(p, nil)
		for _, wait := range []time.Duration{0, 0, 10 * time.Second} {
			time.Sleep(wait)
			synctest.Wait()
			b.runtime.End(p.UID, "user", 1)
			synctest.Wait()
		}
		first.Close()
		p = p.DeepCopy()
		p.Status = first.Status()
		if s := p.Status.ContainerStatuses[0]; s.RestartCount != 2 || s.State.Waiting == nil {
			t.Fatalf("container = %+v", s)
		}
		second := b.start(p, nil)
		time.Sleep(19 * time.Second)
		if user(second).State.Running != nil {
			t.Error("the back-off was forgotten")
		}
		time.Sleep(2 * time.Second)
		if s := user(second); s.State.Running == nil || s.RestartCount != 3 {
			t.Errorf("container = %+v", s)
		}
	})
}

package pod_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func TestPodOnTheHostsNetworkHasTheHostsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.host.SharedIPs = []string{"192.0.2.9"}
		m := b.start(newPod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), nil)
		synctest.Wait()
		if s := m.Status(); s.PodIP != "192.0.2.9" || s.HostIP != "192.0.2.1" {
			t.Errorf("pod IP %s, host IP %s", s.PodIP, s.HostIP)
		}
	})
}

func TestWhatTheNodeCannotGiveIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		event  string
		runs   bool
	}{
		"users of its own": {func(p *corev1.Pod) { p.Spec.HostUsers = new(bool) }, "FailedCreatePodSandBox", false},
		"a port on the host": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
		}, "HostPortNotOpened", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				m := b.start(newPod(c.change), nil)
				time.Sleep(time.Second)
				if seen := b.reasons(); !slices.Contains(seen, c.event) {
					t.Errorf("events = %s, want %s", strings.Join(seen, " "), c.event)
				}
				if runs := m.Status().Phase == corev1.PodRunning; runs != c.runs {
					t.Errorf("phase = %s", m.Status().Phase)
				}
			})
		})
	}
}

func TestASandboxThatEndedIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		m := b.start(newPod(nil), nil)
		synctest.Wait()
		before := m.Status().PodIP
		b.runtime.Refuse("user", fmt.Errorf("asking the guardian: %w", runtime.ErrNotRunning))
		b.runtime.End("11111111-2222-3333-4444-555555555555", "user", 137)
		synctest.Wait()
		b.runtime.Refuse("user", nil)
		time.Sleep(time.Minute)
		if s := m.Status(); !ready(m) || s.PodIP == before {
			t.Errorf("ready %v, address %s, before %s", ready(m), s.PodIP, before)
		}
		if seen := b.reasons(); !slices.Contains(seen, "SandboxChanged") {
			t.Errorf("events = %v", seen)
		}
	})
}

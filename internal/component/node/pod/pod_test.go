package pod_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod"
	"ebb.dev/ebb/internal/component/node/pod/env"
	"ebb.dev/ebb/internal/component/node/pod/network"
	"ebb.dev/ebb/internal/component/node/pod/podtest"
	"ebb.dev/ebb/internal/component/node/pod/volume"
)

// bench is a host with fakes around it.
type bench struct {
	t        *testing.T
	runtime  *podtest.Runtime
	images   *podtest.Images
	objects  *podtest.Objects
	observer *podtest.Observer
	events   *record.FakeRecorder
	host     *pod.Host
	healthy  atomic.Bool // whether connections to pods succeed
	writes   atomic.Int32
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t: t, runtime: podtest.NewRuntime(), images: &podtest.Images{}, objects: &podtest.Objects{},
		observer: &podtest.Observer{}, events: record.NewFakeRecorder(10000),
	}
	dir := t.TempDir()
	b.host = &pod.Host{
		NodeName: "node", HostIPs: []string{"192.0.2.1"}, Runtime: b.runtime, Images: b.images, Objects: b.objects,
		Volumes:  volume.New(volume.Config{Dir: filepath.Join(dir, "pods"), Objects: b.objects, Field: env.Facts{}.Field}),
		Services: func(string) []*corev1.Service { return nil },
		Keychain: func(context.Context, *corev1.Pod) (authn.Keychain, error) { return authn.NewMultiKeychain(), nil },
		Handler:  func(context.Context, *corev1.Pod) (string, error) { return "", nil },
		Cluster:  network.Cluster{Domain: "cluster.local", HostConf: filepath.Join(dir, "none")},
		LogDir:   filepath.Join(dir, "logs"), Events: b.events, Observer: b.observer,
		Changed: func(*pod.Pod, pod.Urgency) { b.writes.Add(1) },
		Log:     slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string) (net.Conn, error) {
			if !b.healthy.Load() {
				return nil, errors.New("connection refused")
			}
			here, there := net.Pipe()
			return here, there.Close()
		},
	}
	return b
}

// start begins the pod and hands the runtime's exits to it until the test ends.
func (b *bench) start(p *corev1.Pod, adopt *runtime.Sandbox) *pod.Pod {
	m := pod.New(b.host, p, adopt)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case c := <-b.runtime.Exits():
				m.Exited(c)
			case <-stop:
				return
			}
		}
	}()
	b.t.Cleanup(func() { close(stop); m.Close() })
	return m
}

// reasons are the events so far, "Reason" only.
func (b *bench) reasons() []string {
	var out []string
	for {
		select {
		case e := <-b.events.Events:
			out = append(out, strings.Fields(e)[1])
		default:
			return out
		}
	}
}

func newPod(change func(*corev1.Pod)) *corev1.Pod {
	grace := int64(30)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello", UID: types.UID("11111111-2222-3333-4444-555555555555")},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace, DNSPolicy: corev1.DNSClusterFirst,
			Containers: []corev1.Container{{Name: "user", Image: "example.com/hello", ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
	if change != nil {
		change(p)
	}
	return p
}

func conditionOf(s corev1.PodStatus, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

func ready(m *pod.Pod) bool { return conditionOf(m.Status(), corev1.PodReady) == corev1.ConditionTrue }

func user(m *pod.Pod) corev1.ContainerStatus { return m.Status().ContainerStatuses[0] }

func TestPodWithoutProbesIsReadyOnceStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		m := b.start(newPod(nil), nil)
		synctest.Wait()
		s := m.Status()
		if !ready(m) || s.Phase != corev1.PodRunning || s.PodIP != "10.0.0.1" || s.HostIP != "192.0.2.1" {
			t.Fatalf("status = %+v", s)
		}
		if s.ContainerStatuses[0].RestartCount != 0 || !strings.HasPrefix(s.ContainerStatuses[0].ContainerID, "ebb://") {
			t.Errorf("container = %+v", s.ContainerStatuses[0])
		}
		last := b.observer.Last()
		if !last.Ready || last.IP.String() != "10.0.0.1" || last.Stamps["ready"].IsZero() {
			t.Errorf("observer was told %+v", last)
		}
		if diff := cmp.Diff([]string{"Pulled", "Created", "Started"}, b.reasons()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func tcpProbe() *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}},
		PeriodSeconds: 10, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1,
	}
}

func TestReadinessIsToldWithinMilliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		m := b.start(newPod(func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = tcpProbe() }), nil)
		time.Sleep(10 * time.Millisecond)
		if ready(m) {
			t.Fatal("ready before the probe passed")
		}
		b.healthy.Store(true)
		begin := time.Now()
		for !b.observer.Last().Ready {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); took > 50*time.Millisecond {
			t.Errorf("readiness told after %s", took)
		}
		// Unready only after three failures a period apart.
		b.healthy.Store(false)
		time.Sleep(25 * time.Second)
		if !ready(m) {
			t.Error("unready before the failure threshold")
		}
		time.Sleep(10 * time.Second)
		if ready(m) {
			t.Error("still ready after the failure threshold")
		}
		if user(m).RestartCount != 0 {
			t.Error("a readiness probe restarted the container")
		}
	})
}

func TestLivenessRestartsThatContainerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.healthy.Store(true)
		m := b.start(newPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].LivenessProbe = tcpProbe()
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: "x"})
		}), nil)
		synctest.Wait()
		b.healthy.Store(false)
		time.Sleep(45 * time.Second)
		s := m.Status()
		if s.ContainerStatuses[0].RestartCount != 1 || s.ContainerStatuses[1].RestartCount != 0 {
			t.Errorf("restarts = %d and %d, want 1 and 0", s.ContainerStatuses[0].RestartCount, s.ContainerStatuses[1].RestartCount)
		}
		if s.PodIP != "10.0.0.1" {
			t.Errorf("the address changed to %s", s.PodIP)
		}
		if events := b.reasons(); !slices.Contains(events, "Unhealthy") || !slices.Contains(events, "Killing") {
			t.Errorf("events = %v", events)
		}
	})
}

func TestCrashLoopBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := newPod(nil)
		m := b.start(p, nil)
		synctest.Wait()
		for i, wait := range []time.Duration{0, 10, 20, 40, 80, 160, 300, 300} {
			b.runtime.End(p.UID, "user", 7)
			synctest.Wait()
			if wait > 0 {
				s := user(m)
				if s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" || s.LastTerminationState.Terminated.ExitCode != 7 {
					t.Fatalf("after crash %d: %+v", i, s)
				}
				time.Sleep(wait*time.Second - time.Millisecond)
				if user(m).State.Running != nil {
					t.Fatalf("crash %d: started before %ds", i, wait)
				}
				time.Sleep(2 * time.Millisecond)
			}
			if s := user(m); s.State.Running == nil || int(s.RestartCount) != i+1 {
				t.Fatalf("crash %d: not running again: %+v", i, s)
			}
		}
		time.Sleep(11 * time.Minute)
		b.runtime.End(p.UID, "user", 7)
		synctest.Wait()
		if user(m).State.Running == nil {
			t.Error("ten quiet minutes did not reset the back-off")
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	tests := map[string]struct {
		policy   corev1.RestartPolicy
		code     int
		phase    corev1.PodPhase
		restarts int32
	}{
		"never and success":      {corev1.RestartPolicyNever, 0, corev1.PodSucceeded, 0},
		"never and failure":      {corev1.RestartPolicyNever, 3, corev1.PodFailed, 0},
		"on failure and success": {corev1.RestartPolicyOnFailure, 0, corev1.PodSucceeded, 0},
		"on failure and failure": {corev1.RestartPolicyOnFailure, 3, corev1.PodRunning, 1},
		"always and success":     {corev1.RestartPolicyAlways, 0, corev1.PodRunning, 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				p := newPod(func(p *corev1.Pod) { p.Spec.RestartPolicy = tc.policy })
				m := b.start(p, nil)
				synctest.Wait()
				b.runtime.End(p.UID, "user", tc.code)
				time.Sleep(time.Second)
				s := m.Status()
				if s.Phase != tc.phase || s.ContainerStatuses[0].RestartCount != tc.restarts {
					t.Errorf("phase %s, %d restarts", s.Phase, s.ContainerStatuses[0].RestartCount)
				}
				if tc.restarts == 0 && b.runtime.Sandboxes() != 0 {
					t.Error("the sandbox of a finished pod stays")
				}
			})
		})
	}
}

func TestInitContainersAndSidecarsRunInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		always := corev1.ContainerRestartPolicyAlways
		p := newPod(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{
				{Name: "first", Image: "x"}, {Name: "side", Image: "x", RestartPolicy: &always}, {Name: "second", Image: "x"},
			}
		})
		m := b.start(p, nil)
		synctest.Wait()
		if diff := cmp.Diff([]string{"first"}, b.runtime.Started()); diff != "" {
			t.Fatal(diff)
		}
		if w := user(m).State.Waiting; w == nil || w.Reason != "PodInitializing" {
			t.Errorf("waiting = %+v", w)
		}
		b.runtime.End(p.UID, "first", 1) // a failing init container is tried again
		synctest.Wait()
		b.runtime.End(p.UID, "first", 0)
		synctest.Wait()
		b.runtime.End(p.UID, "second", 0)
		synctest.Wait()
		if diff := cmp.Diff([]string{"first", "first", "side", "second", "user"}, b.runtime.Started()); diff != "" {
			t.Fatal(diff)
		}
		if !ready(m) {
			t.Errorf("not ready: %+v", m.Status().Conditions)
		}
		b.runtime.End(p.UID, "side", 1)
		time.Sleep(time.Second)
		if s := m.Status().InitContainerStatuses[1]; s.RestartCount != 1 || s.State.Running == nil {
			t.Errorf("the sidecar did not come back: %+v", s)
		}
		m.Halt()
		<-m.Finished()
		if diff := cmp.Diff([]string{"user:15", "side:15"}, b.runtime.Signals()); diff != "" {
			t.Errorf("signals (-want +got):\n%s", diff)
		}
	})
}

func TestPullFailuresShowAndRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.images.Fail(errors.New("manifest unknown"))
		m := b.start(newPod(nil), nil)
		synctest.Wait()
		w := user(m).State.Waiting
		if w == nil || w.Reason != "ImagePullBackOff" || !strings.Contains(w.Message, "manifest unknown") {
			t.Fatalf("waiting = %+v", w)
		}
		time.Sleep(11 * time.Second)
		if b.images.Pulls() != 2 {
			t.Errorf("%d pulls, want 2", b.images.Pulls())
		}
		b.images.Fail(nil)
		time.Sleep(25 * time.Second)
		if !ready(m) {
			t.Errorf("did not recover: %+v", m.Status())
		}
	})
}

func TestMissingConfigShowsAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		m := b.start(newPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
			}}}
		}), nil)
		synctest.Wait()
		w := user(m).State.Waiting
		if w == nil || w.Reason != "CreateContainerConfigError" || !strings.Contains(w.Message, `"settings" not found`) {
			t.Fatalf("waiting = %+v", w)
		}
		b.objects.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}, Data: map[string]string{"COLOUR": "blue"}})
		synctest.Wait() // at once, not after the retry's wait
		spec, _ := b.runtime.Spec("user")
		if !ready(m) || !slices.Contains(spec.Process.Env, "COLOUR=blue") {
			t.Errorf("env = %v", spec.Process.Env)
		}
	})
}

func TestStartErrorBecomesLastState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.runtime.Refuse("user", errors.New(`exec "/app": no such file or directory`))
		m := b.start(newPod(nil), nil)
		time.Sleep(time.Second)
		s := user(m)
		if s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 128 ||
			!strings.Contains(s.LastTerminationState.Terminated.Message, "no such file") {
			t.Errorf("last state = %+v", s.LastTerminationState.Terminated)
		}
		if s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" {
			t.Errorf("state = %+v", s.State)
		}
	})
}

func TestActiveDeadlineFailsThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		seconds := int64(20)
		m := b.start(newPod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &seconds }), nil)
		time.Sleep(19 * time.Second)
		if m.Status().Phase != corev1.PodRunning {
			t.Fatal("ended before its deadline")
		}
		time.Sleep(2 * time.Second)
		if s := m.Status(); s.Phase != corev1.PodFailed || s.Reason != "DeadlineExceeded" {
			t.Errorf("phase %s, reason %s", s.Phase, s.Reason)
		}
	})
}

func TestLimitsReachTheRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.host.MemoryCapacity = 8 << 30
		b.start(newPod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			}
		}), nil)
		synctest.Wait()
		spec, _ := b.runtime.Spec("user")
		want := runtime.Resources{CPUShares: 256, CPUQuotaUS: 50000, CPUPeriodUS: 100000, MemoryBytes: 64 << 20, OOMScoreAdj: 999}
		if diff := cmp.Diff(want, spec.Resources); diff != "" {
			t.Errorf("resources (-want +got):\n%s", diff)
		}
	})
}

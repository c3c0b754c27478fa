package node_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/component/node/pod/podtest"
)

const patience = 10 * time.Second

// stage is a node on a runtime without processes and an API in memory.
type stage struct {
	t        *testing.T
	client   *fake.Clientset
	runtime  *podtest.Runtime
	observer *podtest.Observer
	leases   *podtest.Leases
	node     *node.Node
	letGo    func() // ends the node as a crash would
	dir      string
}

func newStage(t *testing.T, objects ...runtime.Object) *stage {
	s := &stage{t: t, client: fake.NewClientset(objects...), runtime: podtest.NewRuntime(), observer: &podtest.Observer{}, leases: &podtest.Leases{}, dir: t.TempDir()}
	grantTokens(s.client)
	s.start()
	return s
}

// grantTokens makes the API in memory answer token requests.
func grantTokens(client *fake.Clientset) {
	client.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		return true, &authv1.TokenRequest{Status: authv1.TokenRequestStatus{Token: "a-token", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}}, nil
	})
}

// start runs a node until the test ends or it is let go.
func (s *stage) start() {
	s.run(node.Config{
		Name: "here", Version: "test", Client: s.client, Runtime: s.runtime, Images: &podtest.Images{}, Handlers: []string{"runc"},
		Address: netip.MustParseAddr("192.0.2.1"), DNS: netip.MustParseAddr("192.0.2.53"), DataDir: s.dir, Observer: s.observer, Leases: s.leases, ImagesDir: s.dir,
		Log:  slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") },
	})
}

// run runs a node of that configuration.
func (s *stage) run(c node.Config) {
	n, err := node.New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.node = n
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context())) // it ends after the test's own
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	letGo := func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("the node ended with %v", err)
		}
		ended <- nil
	}
	s.letGo = letGo
	s.t.Cleanup(letGo)
	select {
	case <-n.Ready():
	case <-time.After(patience):
		s.t.Fatal("the node did not become ready")
	}
}

// eventually waits for a condition that another goroutine brings about.
func (s *stage) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *stage) pod(name string) *corev1.Pod {
	p, err := s.client.CoreV1().Pods("default").Get(s.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *stage) create(name string, change func(*corev1.Pod)) *corev1.Pod {
	grace, mode, expires := int64(30), int32(0o644), int64(3607)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: "here", ServiceAccountName: "default", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			DNSPolicy: corev1.DNSClusterFirst,
			Containers: []corev1.Container{{
				Name: "user", Image: "example.com/hello", ImagePullPolicy: corev1.PullIfNotPresent,
				VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &expires}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
			}}}}},
		},
	}
	if change != nil {
		change(p)
	}
	p, err := s.client.CoreV1().Pods("default").Create(s.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func isReady(p *corev1.Pod) bool {
	return p != nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func TestNodeRegistersItself(t *testing.T) {
	s := newStage(t)
	n, err := s.client.CoreV1().Nodes().Get(t.Context(), "here", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Status.NodeInfo.KubeletVersion != "v1.36.4+ebb" || n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 || len(n.Spec.Taints) != 0 {
		t.Errorf("node = %+v", n)
	}
	if q := n.Status.Allocatable[corev1.ResourcePods]; q.Value() != 500 {
		t.Errorf("%d pods", q.Value())
	}
	s.eventually("the runtime class", func() bool {
		rc, err := s.client.NodeV1().RuntimeClasses().Get(t.Context(), "runc", metav1.GetOptions{})
		return err == nil && rc.Handler == "runc"
	})
	s.eventually("the storage class", func() bool {
		_, err := s.client.StorageV1().StorageClasses().Get(t.Context(), "local", metav1.GetOptions{})
		return err == nil
	})
}

func TestPodRunsUntilItIsDeleted(t *testing.T) {
	s := newStage(t)
	s.create("hello", nil)
	s.eventually("the pod to be ready", func() bool { return isReady(s.pod("hello")) })
	dir := filepath.Join(s.dir, "pods", "uid-hello", "volumes", "token")
	for file, want := range map[string]string{"token": "a-token", "namespace": "default"} {
		raw, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || string(raw) != want {
			t.Errorf("%s = %q, %v", file, raw, err)
		}
	}
	p := s.pod("hello")
	now, grace := metav1.Now(), int64(30)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	if _, err := s.client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the object to go", func() bool { return s.pod("hello") == nil })
	s.eventually("the sandbox and folders to go", func() bool {
		_, err := os.Stat(filepath.Join(s.dir, "pods", "uid-hello"))
		return s.runtime.Sandboxes() == 0 && os.IsNotExist(err)
	})
	// The object goes when the containers have ended, and the folders before the pod's machine knows.
	s.eventually("the observer to be told", func() bool { return s.observer.Gone() > 0 })
	if s.observer.Gone() != 1 {
		t.Errorf("the observer was told %d times", s.observer.Gone())
	}
}

func TestVanishedPodIsStopped(t *testing.T) {
	s := newStage(t)
	s.create("hello", nil)
	s.eventually("the pod to be ready", func() bool { return isReady(s.pod("hello")) })
	if err := s.client.CoreV1().Pods("default").Delete(t.Context(), "hello", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the sandbox to go", func() bool { return s.runtime.Sandboxes() == 0 })
}

func TestSameNameAgainIsAnotherPod(t *testing.T) {
	s := newStage(t)
	s.runtime.Stubborn["user"] = true // the first takes its whole grace period
	s.create("hello", nil)
	s.eventually("the first pod", func() bool { return isReady(s.pod("hello")) })
	if err := s.client.CoreV1().Pods("default").Delete(t.Context(), "hello", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.create("hello", func(p *corev1.Pod) { p.UID = "uid-second" })
	s.eventually("the second pod", func() bool { p := s.pod("hello"); return isReady(p) && p.UID == "uid-second" })
}

func TestForeignConditionsAndGates(t *testing.T) {
	s := newStage(t)
	s.create("hello", func(p *corev1.Pod) {
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	})
	s.eventually("the pod to run", func() bool { p := s.pod("hello"); return p != nil && p.Status.Phase == corev1.PodRunning })
	if isReady(s.pod("hello")) {
		t.Fatal("ready with its gate closed")
	}
	p := s.pod("hello")
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
	if _, err := s.client.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the gate to open", func() bool { return isReady(s.pod("hello")) })
	if !slices.ContainsFunc(s.pod("hello").Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == "example.com/gate" }) {
		t.Error("another owner's condition was lost")
	}
}

func TestNodeTakesOverWhatRuns(t *testing.T) {
	s := newStage(t)
	s.create("hello", nil)
	s.create("gone", nil)
	for _, name := range []string{"hello", "gone"} {
		s.eventually(name, func() bool { return isReady(s.pod(name)) })
	}
	before := s.pod("hello")
	s.letGo()
	if err := s.client.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.eventually("the vanished pod's sandbox to go", func() bool { return s.runtime.Sandboxes() == 1 })
	s.eventually("the pod to be told ready", func() bool { return s.observer.Last().Ready })
	after := s.pod("hello")
	if before.Status.PodIP != after.Status.PodIP || before.Status.ContainerStatuses[0].ContainerID != after.Status.ContainerStatuses[0].ContainerID ||
		after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("before %+v\nafter %+v", before.Status, after.Status)
	}
	if n := len(s.runtime.Started()); n != 2 {
		t.Errorf("%d containers were started, want 2", n)
	}
}

func TestLeasesOfVanishedPodsAreReleased(t *testing.T) {
	s := newStage(t)
	s.create("hello", nil)
	s.create("gone", nil)
	s.eventually("both leases", func() bool { return len(s.leases.Owners()) == 2 })
	s.letGo()
	if err := s.client.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []string{"pod/uid-forgotten/user", "another's"} {
		if err := s.leases.Lease(owner, "sha256:1"); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	if got, want := s.leases.Owners(), []string{"another's", "pod/uid-hello/user"}; !slices.Equal(got, want) {
		t.Errorf("owners = %v, want %v", got, want)
	}
}

func TestStopKeepsObjects(t *testing.T) {
	s := newStage(t)
	s.create("hello", nil)
	s.eventually("the pod to be ready", func() bool { return isReady(s.pod("hello")) })
	if err := s.node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := s.pod("hello"); p == nil || isReady(p) {
		t.Errorf("pod = %+v", p)
	}
	if s.runtime.Sandboxes() != 0 {
		t.Error("a sandbox is left")
	}
	s.start()
	s.eventually("the pod to be ready again", func() bool { return isReady(s.pod("hello")) })
}

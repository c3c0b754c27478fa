package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"ebb.dev/ebb/internal/platform/config"
)

const patience = 60 * time.Second

// nodeSide stands for the node's network: an address pods would use.
const nodeSide = "127.0.0.2"

// fixture is a cluster in a folder, started and stopped as often as a test wants.
type fixture struct {
	cfg     Config
	cluster *Cluster
	client  kubernetes.Interface
	rest    *rest.Config
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{cfg: Config{
		Folder:     config.Folder(t.TempDir()),
		ID:         config.Identity{ID: "abcdef", Network: netip.MustParsePrefix("10.77.0.0/16")},
		APIAddress: freeAddress(t),
		Locals: []Local{
			{Namespace: "ebb-system", Name: "things", Handler: http.HandlerFunc(serveThings), APIs: []GroupVersion{{Group: "things.example.test", Version: "v1", GroupPriority: 100, VersionPriority: 10}}},
			{Namespace: "ebb-system", Name: "admission", Handler: http.HandlerFunc(refuseBad)},
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start returns how long it took until the API could be used.
func (f *fixture) start(t *testing.T) time.Duration {
	t.Helper()
	_, port, _ := net.SplitHostPort(f.cfg.APIAddress)
	f.cfg.NodeListener = listen(t, net.JoinHostPort(nodeSide, port)) // closed by the cluster
	begun := time.Now()
	c, err := Start(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.cluster = c
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if err := c.Whole(ctx); err != nil {
		t.Fatal(err)
	}
	f.rest = c.RESTConfig()
	if f.client, err = kubernetes.NewForConfig(f.rest); err != nil {
		t.Fatal(err)
	}
	return took
}

func (f *fixture) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	begun := time.Now()
	if err := f.cluster.Stop(ctx); err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %v", time.Since(begun).Round(time.Millisecond))
	select {
	case err := <-f.cluster.Done():
		t.Errorf("a part ended by itself: %v", err)
	default:
	}
}

// serveThings is a smallest aggregated API: discovery and a list.
func serveThings(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch r.URL.Path {
	case "/apis/things.example.test/v1":
		answer = metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: "things.example.test/v1",
			APIResources: []metav1.APIResource{{Name: "things", SingularName: "thing", Namespaced: true, Kind: "Thing", Verbs: metav1.Verbs{"list"}}},
		}
	case "/apis/things.example.test/v1/things":
		answer = map[string]any{"kind": "ThingList", "apiVersion": "things.example.test/v1", "for": r.Header.Get("X-Remote-User")}
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// refuseBad is an admission webhook that refuses every object named bad.
func refuseBad(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: review.Request.Name != "bad", Result: &metav1.Status{Message: "metadata.name: may not be bad"}}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// eventually polls a condition of the cluster.
func eventually(t *testing.T, what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	begun := time.Now()
	for {
		done, err := ok(ctx)
		if done && err == nil {
			t.Logf("%s after %v", what, time.Since(begun).Round(time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v, %v", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func TestCluster(t *testing.T) {
	f := newFixture(t)
	t.Logf("empty folder: ready in %v", f.start(t).Round(time.Millisecond))
	t.Run("identity and protection", func(t *testing.T) { testProtection(t, f) })
	t.Run("a Deployment's pods are made and scheduled", func(t *testing.T) { testDeployment(t, f) })
	t.Run("a namespace gets its defaults and ends", func(t *testing.T) { testNamespace(t, f) })
	t.Run("only others' objects tell who set what", func(t *testing.T) { testLean(t, f) })
	t.Run("quota and webhooks refuse", func(t *testing.T) { testAdmission(t, f) })
	t.Run("a local API is served through the API", func(t *testing.T) { testLocalAPI(t, f) })
	var token string
	t.Run("tokens are issued and accepted", func(t *testing.T) { token = testToken(t, f) })
	ca := string(f.cluster.CABundle())
	f.stop(t)

	t.Logf("existing folder: ready in %v", f.start(t).Round(time.Millisecond))
	defer f.stop(t)
	t.Run("a restart continues", func(t *testing.T) {
		if string(f.cluster.CABundle()) != ca {
			t.Error("the authority changed")
		}
		if _, err := f.client.AppsV1().Deployments("default").Get(t.Context(), "hello", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		if user := whoIs(t, f, token); user != "system:serviceaccount:default:default" {
			t.Errorf("a token of before the restart belongs to %q", user)
		}
	})
	t.Run("controllers work after a restart", func(t *testing.T) { testNamespace(t, f) })
	t.Run("a second one is refused the address", func(t *testing.T) { testAddressInUse(t, f) })
}

func testProtection(t *testing.T, f *fixture) {
	version, err := f.client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.GitVersion != Version() {
		t.Errorf("git version is %q", version.GitVersion)
	}
	anonymous, err := kubernetes.NewForConfig(rest.AnonymousClientConfig(f.rest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anonymous.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("anonymous reading of secrets: %v", err)
	}
	_, port, _ := net.SplitHostPort(f.cfg.APIAddress)
	inside := rest.CopyConfig(f.rest)
	inside.Host = "https://" + net.JoinHostPort(nodeSide, port)
	inside.ServerName = "kubernetes.default.svc"
	pod, err := kubernetes.NewForConfig(inside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Discovery().ServerVersion(); err != nil {
		t.Errorf("asking at the node's side: %v", err)
	}
	admin, err := clientcmd.BuildConfigFromFlags("", f.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the kubeconfig's user reading secrets: %v", err)
	}
	for path, want := range map[string]os.FileMode{f.cfg.Folder.PKI(): 0o700, f.cfg.Folder.Etcd(): 0o700, f.cluster.Kubeconfig(): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
	eventually(t, "the API is advertised at the node address", func(ctx context.Context) (bool, error) {
		slice, err := f.client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			return false, ignoreNotFound(err)
		}
		return slice.Endpoints[0].Addresses[0] == f.cfg.ID.NodeIP().String(), nil
	})
}

func testLean(t *testing.T, f *fixture) {
	outside, err := clientcmd.BuildConfigFromFlags("", f.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kubernetes.NewForConfig(outside)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		creator, changer kubernetes.Interface
		tells            bool
	}{"made-inside": {f.client, admin, false}, "made-outside": {admin, f.client, true}} {
		maps := c.creator.CoreV1().ConfigMaps("default")
		made, err := maps.Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "a"},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Data = map[string]string{"a": "b"}
		changed, err := c.changer.CoreV1().ConfigMaps("default").Update(t.Context(), made, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if tells := len(changed.ManagedFields) > 0; tells != c.tells {
			t.Errorf("%s tells who set what: %v, want %v", name, tells, c.tells)
		}
	}
}

func testLocalAPI(t *testing.T, f *fixture) {
	raw, err := f.client.Discovery().RESTClient().Get().AbsPath("/apis/things.example.test/v1/things").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `"for":"system:ebb"`) {
		t.Errorf("local API answered %s", raw)
	}
	lists, err := f.client.Discovery().ServerResourcesForGroupVersion("things.example.test/v1")
	if err != nil || len(lists.APIResources) != 1 {
		t.Errorf("discovery of the local API: %v, %v", lists, err)
	}
}

func testAddressInUse(t *testing.T, f *fixture) {
	other := f.cfg
	other.Folder, other.NodeListener = config.Folder(t.TempDir()), nil
	_, err := Start(t.Context(), other)
	_, port, _ := net.SplitHostPort(f.cfg.APIAddress)
	if !errors.Is(err, ErrAddressInUse) || !strings.Contains(err.Error(), port) || !strings.Contains(err.Error(), "--api") {
		t.Errorf("starting on a taken address: %v", err)
	}
}

func readyNode(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	capacity := corev1.ResourceList{"cpu": quantity("4"), "memory": quantity("8Gi"), "pods": quantity("110")}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{"kubernetes.io/hostname": "here"}}}
	node.Status = corev1.NodeStatus{
		Capacity: capacity, Allocatable: capacity,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
	}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

package node_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/adapter/runtime/runtimetest"
	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/component/node/pod/podtest"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// machine is a node with real containers, an API in memory and its own API on loopback.
type machine struct {
	stage
	api    string
	client rest.TLSClientConfig
	host   func(ctx context.Context, network, address string) (net.Conn, error)
	begin  func()
	crash  func()
}

func newMachine(t *testing.T) *machine {
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	world := netnstest.New(t)
	netConfig := world.Config(77)
	space := world.Open(t, netConfig)
	m := &machine{stage: stage{t: t, client: fake.NewClientset(), observer: &podtest.Observer{}, dir: t.TempDir()}}
	grantTokens(m.stage.client)
	ca := newAuthority(t)
	serverTLS := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "here", net.IPv4(127, 0, 0, 1))}, MinVersion: tls.VersionTLS12}
	own := ca.issue(t, "the-api-server", nil)
	m.client = rest.TLSClientConfig{CAData: ca.pem, CertData: certPEM(own), KeyData: keyPEM(t, own)}
	m.host = space.DialContext
	cfg := container.Config{StateDir: world.Dir + "/runtime", CgroupRoot: runtimetest.CgroupRoot(), Log: slog.New(slog.DiscardHandler), Park: 2}
	t.Cleanup(func() {
		if err := errors.Join(container.CleanUp(context.WithoutCancel(t.Context()), cfg), network.CleanUp(world.Dir+"/pods")); err != nil {
			t.Error(err)
		}
	})
	m.begin = func() {
		pods, err := network.New(space, netConfig.PodCIDR, world.Dir+"/pods")
		if err != nil {
			t.Fatal(err)
		}
		c := cfg
		c.Pods = pods
		rt, err := container.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m.api = "https://" + listener.Addr().String()
		m.run(node.Config{
			Name: "here", Version: "test", Client: withReviews(t, m.stage.client), Runtime: rt, Address: netip.MustParseAddr("192.0.2.1"), DNS: netip.MustParseAddr("192.0.2.53"),
			Images:  &podtest.Images{Image: runtime.Image{RootFS: []string{runtimetest.Layer(t)}, Entrypoint: []string{"/pod"}}},
			DataDir: m.dir, Observer: m.observer, Seccomp: container.DefaultSeccomp, Dial: space.DialContext,
			Listen: listener, TLS: serverTLS, ClientCA: ca.pem, Log: slog.New(slog.DiscardHandler),
		})
		m.crash = func() {
			m.letGo()
			if err := rt.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	m.begin()
	return m
}

// reviewed is the API in memory with a server for access reviews, which are made past the fake's
// reactors.
type reviewed struct {
	kubernetes.Interface
	real kubernetes.Interface
}

// IsWatchListSemanticsUnSupported passes on that the API in memory cannot stream lists.
func (reviewed) IsWatchListSemanticsUnSupported() bool { return true }

func (r reviewed) AuthorizationV1() authorizationv1.AuthorizationV1Interface {
	return r.real.AuthorizationV1()
}

func (r reviewed) AuthenticationV1() authenticationv1.AuthenticationV1Interface {
	return r.real.AuthenticationV1()
}

// withReviews allows one user everything and knows no tokens.
func withReviews(t *testing.T, client kubernetes.Interface) kubernetes.Interface {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authzv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		review.Status.Allowed = review.Spec.User == "the-api-server"
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	real, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return reviewed{client, real}
}

// runs creates a pod of the test image with these arguments.
func (m *machine) runs(name string, args []string, change func(*corev1.Pod)) {
	m.create(name, func(p *corev1.Pod) {
		p.Spec.Containers[0].Args = args
		p.Spec.Containers[0].TerminationMessagePath = corev1.TerminationMessagePathDefault
		p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageReadFile
		if change != nil {
			change(p)
		}
	})
}

func (m *machine) get(path string) string {
	m.t.Helper()
	cfg := &rest.Config{Host: m.api, TLSClientConfig: m.client}
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, m.api+path, http.NoBody)
	if err != nil {
		m.t.Fatal(err)
	}
	res, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(body)
}

func (m *machine) exec(pod string, in io.Reader, tty bool, command ...string) (string, error) {
	m.t.Helper()
	q := url.Values{"command": command, "output": {"1"}}
	if in != nil {
		q.Set("input", "1")
	}
	if tty {
		q.Set("tty", "1")
	} else {
		q.Set("error", "1")
	}
	u, err := url.Parse(m.api + "/exec/default/" + pod + "/user?" + q.Encode())
	if err != nil {
		m.t.Fatal(err)
	}
	e, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: m.api, TLSClientConfig: m.client}, http.MethodPost, u)
	if err != nil {
		m.t.Fatal(err)
	}
	var out, errs bytes.Buffer // two: they are written side by side
	options := remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: tty}
	if !tty {
		options.Stderr = &errs
	}
	err = e.StreamWithContext(m.t.Context(), options)
	return out.String() + errs.String(), err
}

func TestContainersOnANode(t *testing.T) {
	m := newMachine(t)
	m.runs("hello", []string{"serve", ":8080"}, func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.Env = []corev1.EnvVar{{Name: "GREETING", Value: "hi $(WHO)"}, {Name: "WHO", Value: "you"}, {Name: "SELF", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("1")}
	})
	m.eventually("the pod to be ready", func() bool { return isReady(m.pod("hello")) })
	ip := m.pod("hello").Status.PodIP
	t.Run("probes and token", func(t *testing.T) {
		stamps := m.observer.Last().Stamps
		t.Logf("bound to sandbox %s, to started %s, to ready %s", stamps["sandbox"].Sub(stamps["bound"]),
			stamps["started"].Sub(stamps["bound"]), stamps["ready"].Sub(stamps["bound"]))
		out, err := m.exec("hello", nil, false, "/pod", "print", "/var/run/secrets/kubernetes.io/serviceaccount/token")
		if err != nil || !strings.Contains(out, "a-token") {
			t.Errorf("token = %q, %v", out, err)
		}
	})
	t.Run("environment", func(t *testing.T) {
		out, err := m.exec("hello", nil, false, "/pod", "env")
		for _, want := range []string{"GREETING=hi $(WHO)\n", "WHO=you\n", "SELF=" + ip + "\n", "HOSTNAME=hello\n"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%q is missing in %q, %v", want, out, err)
			}
		}
	})
	t.Run("network files", func(t *testing.T) {
		out, err := m.exec("hello", nil, false, "/pod", "print", "/etc/hosts", "/etc/resolv.conf")
		for _, want := range []string{ip + "\thello\n", "nameserver 192.0.2.53\n", "search default.svc.cluster.local svc.cluster.local cluster.local"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%q is missing in %q, %v", want, out, err)
			}
		}
	})
	t.Run("exec", func(t *testing.T) {
		_, err := m.exec("hello", nil, false, "/pod", "exit", "7")
		var exit utilexec.CodeExitError
		if !asExit(err, &exit) || exit.Code != 7 {
			t.Errorf("exit 7 gave %v", err)
		}
		if out, err := m.exec("hello", strings.NewReader("through\n"), false, "/pod", "cat"); err != nil || out != "through\nend of input\n" {
			t.Errorf("stdin came back as %q, %v", out, err)
		}
	})
	t.Run("port-forward", func(t *testing.T) { m.forward(t, "hello", 8080) })
	t.Run("stats", func(t *testing.T) {
		if s := m.get("/stats/summary"); !strings.Contains(s, `"name":"user"`) || !strings.Contains(s, `"workingSetBytes"`) {
			t.Errorf("summary = %.300s", s)
		}
		if s := m.get("/metrics/resource"); !strings.Contains(s, `container_memory_working_set_bytes{container="user",namespace="default",pod="hello"} `) {
			t.Errorf("metrics = %.300s", s)
		}
	})
	t.Run("strangers stay out", func(t *testing.T) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		res, err := client.Get(m.api + "/pods")
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("a caller without a certificate got %s", res.Status)
		}
	})
	t.Run("crash of the node", func(t *testing.T) {
		before := m.pod("hello").Status
		m.crash()
		m.begin()
		m.eventually("the pod to be told ready", func() bool { return m.observer.Last().Ready })
		after := m.pod("hello").Status
		if before.PodIP != after.PodIP || before.ContainerStatuses[0].ContainerID != after.ContainerStatuses[0].ContainerID || after.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("before %+v\nafter %+v", before.ContainerStatuses, after.ContainerStatuses)
		}
		if out, err := m.exec("hello", nil, false, "/pod", "echo", "alive"); err != nil || out != "alive\n" {
			t.Errorf("exec after the crash: %q, %v", out, err)
		}
	})
}

func TestEndsOfContainers(t *testing.T) {
	m := newMachine(t)
	never := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }
	t.Run("logs of a finished pod", func(t *testing.T) {
		m.runs("both", []string{"both"}, never)
		m.eventually("the pod to finish", func() bool { return m.pod("both").Status.Phase == corev1.PodSucceeded })
		all := m.get("/containerLogs/default/both/user")
		if strings.Count(all, "\n") != 2 {
			t.Errorf("log = %q", all)
		}
		if one := m.get("/containerLogs/default/both/user?tailLines=1&timestamps=true"); strings.Count(one, "\n") != 1 || !strings.HasPrefix(one, "20") {
			t.Errorf("the last line = %q", one)
		}
	})
	t.Run("exit code and last words", func(t *testing.T) {
		m.runs("words", []string{"write", "/dev/termination-log", "so long"}, never)
		m.eventually("the pod to finish", func() bool { return m.pod("words").Status.Phase == corev1.PodSucceeded })
		if term := m.pod("words").Status.ContainerStatuses[0].State.Terminated; term.Message != "so long" || term.Reason != "Completed" {
			t.Errorf("terminated = %+v", term)
		}
	})
	t.Run("log as last words", func(t *testing.T) {
		m.runs("crash", []string{"nosuchverb"}, func(p *corev1.Pod) {
			p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		})
		m.eventually("the container to be restarted", func() bool {
			s := m.pod("crash").Status.ContainerStatuses
			return len(s) == 1 && s[0].LastTerminationState.Terminated != nil && s[0].State.Waiting != nil
		})
		s := m.pod("crash").Status.ContainerStatuses[0]
		if term := s.LastTerminationState.Terminated; term.ExitCode != 64 || !strings.Contains(term.Message, "no such verb") || s.State.Waiting.Reason != "CrashLoopBackOff" {
			t.Errorf("terminated = %+v, waiting = %+v", term, s.State.Waiting)
		}
		if old := m.get("/containerLogs/default/crash/user?previous=true"); !strings.Contains(old, "no such verb") {
			t.Errorf("previous log = %q", old)
		}
	})
	t.Run("following a log to its end", func(t *testing.T) {
		m.runs("ticks", []string{"ticks"}, never)
		m.eventually("the pod to run", func() bool { return m.pod("ticks").Status.Phase == corev1.PodRunning })
		m.eventually("the first tick", func() bool { return m.get("/containerLogs/default/ticks/user") != "" })
		got := make(chan string, 1)
		go func() { got <- m.get("/containerLogs/default/ticks/user?follow=true") }()
		if _, err := m.exec("ticks", nil, false, "/pod", "echo", "x"); err != nil {
			t.Error(err)
		}
		p := m.pod("ticks")
		now, zero := metav1.Now(), int64(0)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &zero
		if _, err := m.stage.client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		select {
		case text := <-got:
			if strings.Count(text, "\n") < 1 {
				t.Errorf("followed %q", text)
			}
		case <-time.After(patience):
			t.Error("following did not end with the container")
		}
	})
}

func (m *machine) forward(t *testing.T, pod string, port int) {
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: m.api, TLSClientConfig: m.client})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(m.api + "/portForward/default/" + pod)
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	defer close(stop)
	f, err := portforward.NewOnAddresses(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u),
		[]string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-failed:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ports[0].Local).String())
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusOK {
		t.Errorf("through the forwarded port %d: %s", port, res.Status)
	}
}

func asExit(err error, into *utilexec.CodeExitError) bool {
	exit, ok := err.(utilexec.CodeExitError) //nolint:errorlint // the client returns it bare
	*into = exit
	return ok
}

// authority issues certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t *testing.T, name string, ip net.IP) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip != nil {
		template.IPAddresses = slices.Concat([]net.IP{ip})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func certPEM(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

func keyPEM(t *testing.T, c tls.Certificate) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

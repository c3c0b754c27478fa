package server

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/serving"

	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/component/roster"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/fleet"
)

func TestAFolderIsHeldByOneProcess(t *testing.T) {
	folder := config.Folder(t.TempDir())
	if status, err := ReadStatus(folder); err != nil || status.State != StateStopped {
		t.Errorf("status before = %+v, %v", status, err)
	}
	held, err := lock(folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(folder); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "ebb down") {
		t.Errorf("second lock = %v, want ErrRunning with the way out", err)
	}
	if status, err := ReadStatus(folder); err != nil || status.State != StateStarting || status.PID != os.Getpid() {
		t.Errorf("status without a file = %+v, %v", status, err)
	}
	if err := config.WriteJSON(folder.Status(), Status{State: StateReady, PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if status, err := ReadStatus(folder); err != nil || status.State != StateReady {
		t.Errorf("status = %+v, %v", status, err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if status, err := ReadStatus(folder); err != nil || status.State != StateStopped {
		t.Errorf("status of a dead process = %+v, %v; only the lock proves life", status, err)
	}
}

func TestResetRefusesAForeignFolder(t *testing.T) {
	folder := config.Folder(t.TempDir())
	if err := Reset(t.Context(), folder); err == nil {
		t.Error("a folder that is not ebb's was deleted")
	}
	if _, err := os.Stat(string(folder)); err != nil {
		t.Errorf("folder after a refused reset: %v", err)
	}
}

func TestPortsAreJudgedBeforeAnythingStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for name, c := range map[string]struct{ address, want string }{
		"in use":           {taken.Addr().String(), "in use"},
		"no port":          {"127.0.0.1", "host:port"},
		"not on loopback":  {"0.0.0.0:8080", "loopback"},
		"a name":           {"localhost:8080", "loopback"},
		"port zero":        {"127.0.0.1:0", "host:port"},
		"no number at all": {"127.0.0.1:http", "host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			err := portFree("--http", c.address, "127.0.0.1:8081")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--http") {
				t.Errorf("error = %v, want one about %q that names the flag", err, c.want)
			}
		})
	}
}

func TestMetricsAnswerBeforeThereIsANode(t *testing.T) {
	s := &Server{log: slog.New(slog.DiscardHandler)}
	h, err := s.metricsHandler()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/apis/metrics.k8s.io/v1beta1":       http.StatusOK,
		"/apis/metrics.k8s.io/v1beta1/nodes": http.StatusInternalServerError,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != want {
			t.Errorf("GET %s = %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}

func TestTheFleetHearsOfRevisionsPodsOnly(t *testing.T) {
	f := fleet.New()
	w := watcher{f, roster.New(f)}
	pod := func(labels map[string]string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "side"}, {Ports: []corev1.ContainerPort{{ContainerPort: 9000}}}}},
		}
	}
	ip := netip.MustParseAddr("10.0.0.7")
	rev := types.NamespacedName{Namespace: "ns", Name: "r"}
	w.PodChanged(node.PodState{Pod: pod(nil), IP: ip, Ready: true})
	if n := len(f.Instances(rev)); n != 0 {
		t.Fatalf("%d instances after a pod of no revision", n)
	}
	stamps := map[string]time.Time{"ready": time.Unix(1, 0)}
	w.PodChanged(node.PodState{Pod: pod(map[string]string{serving.RevisionLabelKey: "r"}), IP: ip, Ready: true, Stamps: stamps})
	all := f.Instances(rev)
	if len(all) != 1 || all[0].Address != netip.AddrPortFrom(ip, 9000) || !all[0].Ready || all[0].Pod != "p" {
		t.Fatalf("instances = %+v", all)
	}
	w.PodGone("u")
	if n := len(f.Instances(rev)); n != 0 {
		t.Errorf("%d instances after the pod went", n)
	}
}

func TestTokensOfServiceAccountsAreGuardedAsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		legacy  bool
		want    string // in the error; empty for none
	}{
		"nothing is said":         {options: Options{}},
		"the default is said":     {options: Options{TokenMode: TokensEnforced}},
		"all may leave":           {options: Options{TokenMode: TokensLegacy}, legacy: true},
		"a mode there is not":     {options: Options{TokenMode: "open"}, want: "--service-account-token-mode"},
		"audiences and a filter":  {options: Options{Keda: config.Keda{TokenAudiences: "[{audience: vault}]", OutboundFilter: "{hashiCorpVault: {mode: warn}}"}}},
		"audiences that are none": {options: Options{Keda: config.Keda{TokenAudiences: "{vault}"}}, want: "KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES"},
		"a filter that is none":   {options: Options{Keda: config.Keda{OutboundFilter: "{hashiCorpVault: {mode: loud}}"}}, want: "KEDA_OUTBOUND_FILTER"},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, filter, err := policies(&c.options)
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error = %v, want one about %s", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case tokens.Legacy != c.legacy, len(tokens.Audiences) > 0 != (c.options.Keda.TokenAudiences != ""), filter.Mode == "warn" != (c.options.Keda.OutboundFilter != ""):
				t.Errorf("policies() = %+v, %+v", tokens, filter)
			}
		})
	}
}

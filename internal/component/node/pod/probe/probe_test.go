package probe_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"ebb.dev/ebb/internal/component/node/pod/probe"
)

func target(t *testing.T, address string) (probe.Target, intstr.IntOrString) {
	t.Helper()
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return probe.Target{
		Host: at.Addr().String(), Dial: probe.RetryDial((&net.Dialer{}).DialContext),
		Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(at.Port())}},
	}, intstr.FromInt32(int32(at.Port()))
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bad", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://other.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/asked", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "named.example" || r.Header.Get("X-Who") != "probe" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") || r.URL.RawQuery != "a=b" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	tests := map[string]struct {
		server  *httptest.Server
		action  corev1.HTTPGetAction
		wantErr string
	}{
		"an answer is healthy":               {plain, corev1.HTTPGetAction{Path: "/ok"}, ""},
		"an error's text is told":            {plain, corev1.HTTPGetAction{Path: "/bad"}, "statuscode: 503: no database"},
		"redirects are followed at home":     {plain, corev1.HTTPGetAction{Path: "/moved"}, "503"},
		"redirects to elsewhere are healthy": {plain, corev1.HTTPGetAction{Path: "/away"}, ""},
		"headers, host and query are sent": {plain, corev1.HTTPGetAction{
			Path:        "/asked?a=b",
			HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "named.example"}, {Name: "x-who", Value: "probe"}},
		}, ""},
		"any certificate will do": {secure, corev1.HTTPGetAction{Path: "/ok", Scheme: corev1.URISchemeHTTPS}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			to, port := target(t, tc.server.Listener.Addr().String())
			tc.action.Port = port
			err := probe.Check(t.Context(), &corev1.ProbeHandler{HTTPGet: &tc.action}, to)
			if tc.wantErr == "" && err != nil {
				t.Errorf("error = %v", err)
			}
			if tc.wantErr != "" && (!errors.Is(err, probe.ErrUnhealthy) || !strings.Contains(err.Error(), tc.wantErr)) {
				t.Errorf("error = %v, want %q", err, tc.wantErr)
			}
		})
	}
}

func TestTCPByName(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to, _ := target(t, l.Addr().String())
	h := &corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}
	if err := probe.Check(t.Context(), h, to); err != nil {
		t.Errorf("listening: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := probe.Check(t.Context(), h, to); !errors.Is(err, probe.ErrUnhealthy) {
		t.Errorf("not listening: %v", err)
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	to, port := target(t, l.Addr().String())
	h := &corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port.IntVal}}
	if err := probe.Check(t.Context(), h, to); err != nil {
		t.Errorf("serving: %v", err)
	}
	state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if err := probe.Check(t.Context(), h, to); !errors.Is(err, probe.ErrUnhealthy) {
		t.Errorf("not serving: %v", err)
	}
}

func TestRetryDialDoesNotWaitForTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, tries := time.Now(), 0
		dial := probe.RetryDial(func(ctx context.Context, _, _ string) (net.Conn, error) {
			if tries++; tries < 3 {
				<-ctx.Done() // the first packets are lost
				return nil, ctx.Err()
			}
			here, _ := net.Pipe()
			return here, nil
		})
		if _, err := dial(t.Context(), "tcp", "x"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 60*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

// verdict is one report with its time since the start.
type verdict struct {
	after            time.Duration
	healthy, changed bool
}

// watch runs a probe whose answers depend on time and returns what changed in the given span.
func watch(t *testing.T, s probe.Spec, initial bool, healthy func(after time.Duration) bool, span time.Duration) (changes []verdict, attempts int) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	probe.Watch(ctx, s, initial, func(context.Context) error {
		attempts++
		if healthy(time.Since(begin)) {
			return nil
		}
		return probe.ErrUnhealthy
	}, func(healthy, changed bool, _ error) {
		if changed {
			changes = append(changes, verdict{time.Since(begin).Round(10 * time.Millisecond), healthy, changed})
		}
	})
	return changes, attempts
}

func TestWatch(t *testing.T) {
	always := func(time.Duration) bool { return true }
	never := func(time.Duration) bool { return false }
	tests := map[string]struct {
		kind    probe.Kind
		probe   corev1.Probe
		hurry   bool
		initial bool
		healthy func(time.Duration) bool
		span    time.Duration
		want    []verdict
		most    int // attempts
	}{
		"readiness is known at once": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 10},
			false, false, always, 25 * time.Second,
			[]verdict{{0, true, true}},
			3,
		},
		"the initial delay is kept": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 10, InitialDelaySeconds: 7},
			false, false, always, 8 * time.Second,
			[]verdict{{7 * time.Second, true, true}},
			1,
		},
		"a slow starter is noticed soon": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 10},
			false, false,
			func(at time.Duration) bool { return at > 500*time.Millisecond }, 5 * time.Second,
			[]verdict{{540 * time.Millisecond, true, true}},
			30,
		},
		"liveness fails after its threshold": {
			probe.Liveness,
			corev1.Probe{PeriodSeconds: 5, FailureThreshold: 2},
			false, true, never, 12 * time.Second,
			[]verdict{{5 * time.Second, false, true}},
			3,
		},
		"eager attempts do not fail sooner": {
			probe.Startup,
			corev1.Probe{PeriodSeconds: 10, FailureThreshold: 3},
			false, false, never, 35 * time.Second,
			[]verdict{{30 * time.Second, false, true}},
			800,
		},
		"startup ends with its success": {
			probe.Startup,
			corev1.Probe{PeriodSeconds: 1},
			false, false, always, time.Minute,
			[]verdict{{0, true, true}},
			1,
		},
		"several successes are a period apart": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 2, SuccessThreshold: 3},
			false, false, always, 5 * time.Second,
			[]verdict{{4 * time.Second, true, true}},
			3,
		},
		"unready and ready again": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3},
			false, true,
			func(at time.Duration) bool { return at < 2*time.Second || at > 6*time.Second }, 10 * time.Second,
			[]verdict{{4 * time.Second, false, true}, {7 * time.Second, true, true}},
			11,
		},
		"without period, successes follow closely": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 10, SuccessThreshold: 3},
			true, false, always, 5 * time.Second,
			[]verdict{{100 * time.Millisecond, true, true}},
			3,
		},
		"without period, a short failure does not count": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 10, FailureThreshold: 1},
			true, true,
			func(at time.Duration) bool { return at < time.Second || at > 10500*time.Millisecond }, 25 * time.Second,
			nil,
			20,
		},
		"without period, one that became unready is asked each second": {
			probe.Readiness,
			corev1.Probe{PeriodSeconds: 10, FailureThreshold: 1},
			true, true,
			func(at time.Duration) bool { return at < time.Second || at > 14500*time.Millisecond }, 20 * time.Second,
			[]verdict{{11 * time.Second, false, true}, {15 * time.Second, true, true}},
			100,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spec := probe.NewSpec(tc.kind, &tc.probe, time.Now())
				if tc.hurry {
					spec.Hurry()
				}
				got, attempts := watch(t, spec, tc.initial, tc.healthy, tc.span)
				if len(got) != len(tc.want) {
					t.Fatalf("verdicts %v, want %v", got, tc.want)
				}
				for i := range got {
					if late := got[i].after - tc.want[i].after; got[i].healthy != tc.want[i].healthy || late < -50*time.Millisecond || late > 50*time.Millisecond {
						t.Errorf("verdict %v, want %v", got[i], tc.want[i])
					}
				}
				if attempts > tc.most {
					t.Errorf("%d attempts, want %d at most", attempts, tc.most)
				}
			})
		})
	}
}

func TestHTTP2IsTriedFirst(t *testing.T) {
	only2 := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	only2.Config.Protocols = new(http.Protocols)
	only2.Config.Protocols.SetUnencryptedHTTP2(true)
	only2.Start()
	t.Cleanup(only2.Close)
	only1 := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(only1.Close)
	tests := map[string]struct {
		server *httptest.Server
		try    bool
		want   bool
	}{
		"HTTP/2 alone, tried":     {only2, true, true},
		"HTTP/2 alone, not tried": {only2, false, false},
		"HTTP/1.1 alone":          {only1, true, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			to, port := target(t, tc.server.Listener.Addr().String())
			to.HTTP2 = tc.try
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := probe.Check(ctx, &corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port}}, to); (err == nil) != tc.want {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestCommandIsNotEnoughWhereAPortMustListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to, port := target(t, l.Addr().String())
	to.Listening = port.IntVal
	to.Exec = func(context.Context, []string) (int, []byte, error) { return 0, nil, nil }
	h := &corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/ready"}}}
	if err := probe.Check(t.Context(), h, to); err != nil {
		t.Errorf("listening: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := probe.Check(t.Context(), h, to); !errors.Is(err, probe.ErrUnhealthy) {
		t.Errorf("not listening: %v", err)
	}
}

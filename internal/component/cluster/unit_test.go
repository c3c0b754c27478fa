package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"ebb.dev/ebb/internal/platform/config"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestMergedListenerAcceptsFromBoth(t *testing.T) {
	host := listen(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(host.Addr().String())
	node := listen(t, "127.0.0.2:"+port)
	m, err := mergeListeners(host, node)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{host, node} {
		out, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := m.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if in.LocalAddr().String() != l.Addr().String() {
			t.Errorf("accepted at %v, dialled %v", in.LocalAddr(), l.Addr())
		}
		_, _ = out.Close(), in.Close()
	}
	if m.Addr() != host.Addr() {
		t.Errorf("its address is %v", m.Addr())
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := m.Accept()
		waiting <- err
	}()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a waiting Accept ended with %v", err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestMergedListenerNeedsOnePort(t *testing.T) {
	if _, err := mergeListeners(listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")); err == nil {
		t.Error("listeners with different ports were joined")
	}
	alone := listen(t, "127.0.0.1:0")
	if got, err := mergeListeners(alone, nil); err != nil || got != alone {
		t.Errorf("a lone listener became %v, %v", got, err)
	}
}

func TestKubeconfigLeadsToTheAPI(t *testing.T) {
	folder := config.Folder(t.TempDir())
	cfg := Config{Folder: folder, APIAddress: "0.0.0.0:7443"}
	cfg.ID.Network = newFixture(t).cfg.ID.Network
	f, err := prepareFiles(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := clientcmd.BuildConfigFromFlags("", folder.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "https://127.0.0.1:7443" {
		t.Errorf("it leads to %s", got.Host)
	}
	if diff := cmp.Diff(string(f.ca.PEM()), string(got.CAData)); diff != "" {
		t.Error(diff)
	}
	if len(got.CertData) == 0 || len(got.KeyData) == 0 {
		t.Error("it has no user")
	}
}

func TestResolverKnowsLocalServicesFirst(t *testing.T) {
	s := &locals{all: map[string]Local{"here.ns.svc": {Namespace: "ns", Name: "here"}}}
	r := localResolver{s, elsewhere{}}
	for name, want := range map[string]string{"here": "https://here.ns" + localSuffix + ":443", "other": "https://10.0.0.1:443"} {
		got, err := r.ResolveEndpoint("ns", name, 443)
		if err != nil || got.String() != want {
			t.Errorf("%s is at %v, %v; want %s", name, got, err, want)
		}
	}
}

type elsewhere struct{}

func (elsewhere) ResolveEndpoint(string, string, int32) (*url.URL, error) {
	return url.Parse("https://10.0.0.1:443")
}

func TestPipeListenerConnectsUntilClosed(t *testing.T) {
	p := newPipeListener()
	go func() {
		if conn, err := p.Accept(); err == nil {
			_, _ = io.WriteString(conn, "hi")
			_ = conn.Close()
		}
	}()
	conn, err := p.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hi" {
		t.Errorf("read %q, %v", got, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.dial(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("dialling without anybody accepting: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.dial(t.Context()); !errors.Is(err, errPipeClosed) {
		t.Errorf("dialling a closed one: %v", err)
	}
}

func TestSocketPathFitsTheKernel(t *testing.T) {
	short := t.TempDir()
	long := filepath.Join(short, strings.Repeat("deep/", 30))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{short, long} {
		s := &store{}
		u, err := s.socket(dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", u.Path)
		if err != nil {
			t.Fatalf("listening in %s: %v", dir, err)
		}
		if _, err := os.Stat(filepath.Join(dir, socketName)); err != nil {
			t.Error(err)
		}
		_, _ = l.Close(), s.closeDir()
	}
}

func TestCalmLowersEverything(t *testing.T) {
	var got []slog.Level
	var stopping atomic.Bool
	log := slog.New(calm{recorder{&got}, &stopping}).With("a", 1).WithGroup("g")
	log.Error("x")
	log.Warn("x")
	log.Info("x")
	stopping.Store(true)
	log.Error("x")
	want := []slog.Level{slog.LevelInfo, slog.LevelDebug, slog.LevelDebug, slog.LevelDebug}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

type recorder struct{ levels *[]slog.Level }

func (recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r recorder) Handle(_ context.Context, rec slog.Record) error {
	*r.levels = append(*r.levels, rec.Level)
	return nil
}
func (r recorder) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r recorder) WithGroup(string) slog.Handler      { return r }

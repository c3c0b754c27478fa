package gateway_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/demand"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

const host = "hello.default.localhost"

var rev = types.NamespacedName{Namespace: "default", Name: "hello-00001"}

// rig is a gateway on a real port with one route.
type rig struct {
	t        testing.TB
	g        *gateway.Gateway
	fleet    *fleet.Fleet
	book     *demand.Book
	sink     *sink
	metrics  *prometheus.Registry
	numbers  series.Group // of requests
	addr     string
	settings traffic.Settings
	added    int
}

// sink counts what the autoscaler would be told.
type sink struct {
	wakes, actives atomic.Int64
	onWake         atomic.Pointer[func()]
}

func (s *sink) Wake(types.NamespacedName) {
	s.wakes.Add(1)
	if fn := s.onWake.Load(); fn != nil {
		(*fn)()
	}
}
func (s *sink) Active(types.NamespacedName) { s.actives.Add(1) }

func newRig(t testing.TB, settings traffic.Settings, change ...func(*gateway.Config)) *rig {
	t.Helper()
	r := &rig{
		t: t, fleet: fleet.New(), book: demand.NewBook(), sink: &sink{},
		metrics: prometheus.NewRegistry(), settings: settings,
	}
	c := gateway.Config{Fleet: r.fleet, Demand: r.book, Sink: r.sink, Registerer: r.metrics}
	c.Numbers = gateway.Numbers{Control: &r.numbers, Requests: &r.numbers}
	for _, f := range change {
		f(&c)
	}
	r.g = gateway.New(c)
	r.g.SetTable(r.table(settings))
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.g.Serve(context.WithoutCancel(t.Context()), ln, true) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		if err := r.g.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

func (r *rig) table(settings traffic.Settings) *traffic.Table {
	r.t.Helper()
	all := []traffic.Target{{Revision: rev, Percent: 100}}
	table, err := traffic.Build([]traffic.Rule{
		{Host: host, Targets: all},
		{Host: "mapped.example.com", Targets: all, HostRewrite: "hello.default.svc.cluster.local"},
		{Host: "hello.default.svc.cluster.local", Targets: all, ClusterLocal: true},
	}, map[types.NamespacedName]traffic.Settings{rev: settings})
	if err != nil {
		r.t.Fatal(err)
	}
	return table
}

// add makes a server an instance that is ready.
func (r *rig) add(url string) types.UID {
	r.added++
	id := types.UID("pod-" + strconv.Itoa(r.added))
	r.observe(id, url, true)
	return id
}

func (r *rig) observe(id types.UID, url string, ready bool) {
	r.t.Helper()
	addr, err := netip.ParseAddrPort(strings.TrimPrefix(url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.fleet.Observe(fleet.Local, fleet.Instance{ID: id, Pod: string(id), Revision: rev, Address: addr, Ready: ready})
}

// serve runs an application as a ready instance.
func (r *rig) serve(h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	r.t.Cleanup(s.Close)
	r.add(s.URL)
	return s
}

// request makes a request for the route's host.
func (r *rig) request(method, path string, body string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Host = host
	return req
}

// dial opens a raw connection to the gateway.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

func depth(n int) func(*gateway.Config) { return func(c *gateway.Config) { c.QueueDepth = n } }

func activation(d time.Duration) func(*gateway.Config) {
	return func(c *gateway.Config) { c.ActivationTimeout = d }
}

// startApp runs an application that is no instance yet.
func startApp(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	addr, err := netip.ParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

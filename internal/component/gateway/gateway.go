// Package gateway is the only hop between a client and an instance: match the host, wait for a slot,
// forward, count.
//
//	listen ─► traffic.Match ─► admit (a slot, wait, or refuse) ─► forward ─► instance
//	             │ no               │ queue full, too long           │ never arrived: admit again
//	             ▼                  ▼                                ▼
//	            404                503                      502, 504 or the response
//
// Nothing starts instances here: a request that waits is reported to the demand sink. A request is
// lost only if its bytes reached an instance that then died; every other failure is tried again.
package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http2"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/component/gateway/h1"
	"ebb.dev/ebb/internal/component/gateway/record"
	"ebb.dev/ebb/internal/component/gateway/requestlog"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/demand"
	"ebb.dev/ebb/internal/platform/fleet"
)

// Defaults of Config.
const (
	defaultQueueDepth = 10_000
	minActivation     = time.Minute
)

// Config is what a Gateway works with.
type Config struct {
	// Fleet tells the instances.
	Fleet *fleet.Fleet
	// Demand has every request counted, waiting ones too.
	Demand *demand.Book
	// Sink is told when a request waits and when the first arrives after quiet. Optional.
	Sink demand.Sink
	// Log gets what an operator should know. Optional.
	Log *slog.Logger
	// Registerer gets the gateway's own metrics. Optional.
	Registerer prometheus.Registerer
	// Numbers get the metrics that Knative has, too. Optional.
	Numbers Numbers
	// Tracer makes spans; it returns nil while traces are off. Optional.
	Tracer func() trace.Tracer
	// RequestLog gets every request that is over. Optional.
	RequestLog *requestlog.Log
	// QueueDepth bounds the requests that wait for one revision; 10,000 if 0.
	QueueDepth int
	// ActivationTimeout bounds the wait for an instance; if 0 it is the revision's own timeout, but
	// a minute at least.
	ActivationTimeout time.Duration
	// Timeline tells what was done last to start instances of a revision, and when (decide,
	// replicas). Optional.
	Timeline func(rev types.NamespacedName) map[string]time.Time
	// Dial connects to an instance; plain TCP if nil.
	Dial h1.DialFunc
	// DialBackend connects to what is no instance, by name; as this machine finds it if nil.
	DialBackend func(ctx context.Context, network, addr string) (net.Conn, error)
	// Certificate is what a host is served with by TLS; the Secret is the one its route names, if any.
	// It must not block. Only TLS needs it.
	Certificate func(host string, secret types.NamespacedName) (*tls.Certificate, error)
	// TLSPort is the port that plain requests to hosts with a redirect are sent to; 443 if 0.
	TLSPort int
	// Trusted are the networks of proxies in front, whose X-Forwarded-* and Forwarded are believed.
	Trusted []netip.Prefix
}

// Gateway forwards requests to instances. Its methods are safe for concurrent use.
type Gateway struct {
	config  Config
	metrics *metrics

	backends *http.Transport // to what is no instance

	state  atomic.Pointer[state]
	bodies atomic.Int64 // bytes of request bodies held for sending again

	mu        sync.Mutex // guards all below
	revisions map[types.NamespacedName]*revision
	servers   map[*http.Server]struct{}
	tunnels   map[*tunnel]struct{}
	stopped   bool
}

// state is what a request is matched against; replaced whole.
type state struct {
	table     *traffic.Table
	revisions map[types.NamespacedName]*revision
}

// revision is what the gateway keeps for one.
type revision struct {
	name     types.NamespacedName
	admitter *admit.Admitter
	settings atomic.Pointer[traffic.Settings]
	meter    atomic.Pointer[demand.Meter]
	record   atomic.Pointer[record.Revision]
	cold     atomic.Pointer[ColdStart]
}

// New returns a Gateway that knows no route yet.
func New(c Config) *Gateway {
	if c.QueueDepth == 0 {
		c.QueueDepth = defaultQueueDepth
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Sink == nil {
		c.Sink = nobody{}
	}
	if c.Dial == nil {
		c.Dial = dialTCP
	}
	g := &Gateway{
		config:    c,
		revisions: map[types.NamespacedName]*revision{},
		servers:   map[*http.Server]struct{}{},
		tunnels:   map[*tunnel]struct{}{},
		backends:  newBackends(c.DialBackend),
	}
	g.metrics = newMetrics(c.Registerer)
	g.offer(c.Numbers)
	g.state.Store(&state{})
	c.Fleet.Subscribe(g.refresh)
	return g
}

// nobody listens to demand.
type nobody struct{}

func (nobody) Wake(types.NamespacedName)   {}
func (nobody) Active(types.NamespacedName) {}

// dialTCP connects without TCP keep-alive probes: idle connections are closed long before.
func dialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	return d.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
}

// Public says whether a route has the host and shows it outside the cluster.
func (g *Gateway) Public(host string) bool {
	_, found := g.state.Load().table.Has(host, true)
	return found
}

// SetTable has requests matched against t from now on. Requests in flight are not touched; those
// that wait for a revision which t does not have are matched again.
func (g *Gateway) SetTable(t *traffic.Table) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := &state{table: t, revisions: map[types.NamespacedName]*revision{}}
	var fresh []*revision
	for name, settings := range t.Revisions {
		r := g.revisions[name]
		if r == nil {
			r = g.newRevision(name)
			r.record.Store(record.NewRevision(name, settings.Labels))
			g.revisions[name] = r
			fresh = append(fresh, r)
		}
		r.settings.Store(&settings)
		r.meter.Store(g.config.Demand.Meter(name))
		r.admitter.SetLimit(settings.ContainerConcurrency)
		r.admitter.SetServing(true)
		next.revisions[name] = r
	}
	g.state.Store(next)
	for _, r := range fresh {
		r.admitter.Refresh() // the fleet may have changed before the subscription could find it
	}
	for name, r := range g.revisions {
		if next.revisions[name] != nil {
			continue
		}
		r.admitter.SetServing(false) // after the swap: who leaves looks for a route in the new table
		g.forget(name, r)
	}
}

// forget drops a revision that is in no table any more, once its last instance is gone. g.mu is held.
func (g *Gateway) forget(name types.NamespacedName, r *revision) {
	if g.state.Load().revisions[name] != nil || g.revisions[name] != r || !r.admitter.Idle() {
		return
	}
	delete(g.revisions, name)
	g.metrics.forget(name)
	g.config.Demand.Forget(name)
}

func (g *Gateway) newRevision(name types.NamespacedName) *revision {
	return &revision{name: name, admitter: admit.New(admit.Config{
		Instances: func() []fleet.Instance { return g.config.Fleet.Instances(name) },
		Link:      func(in fleet.Instance) io.Closer { return newLink(in, g.config.Dial) },
		Wake:      func() { g.config.Sink.Wake(name) },
		Depth:     g.config.QueueDepth,
	})}
}

// refresh takes over a change of a revision's instances.
func (g *Gateway) refresh(name types.NamespacedName) {
	g.mu.Lock()
	r := g.revisions[name]
	g.mu.Unlock()
	if r == nil {
		return
	}
	r.admitter.Refresh()
	if g.state.Load().revisions[name] == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.forget(name, r)
	}
}

// Drain stops sending requests to an instance and returns once none is in flight there, or ctx
// ends. Upgraded connections (WebSocket) are not waited for: their application ends them when it
// is told to stop.
func (g *Gateway) Drain(ctx context.Context, uid types.UID) error {
	in, known := g.config.Fleet.Drain(uid)
	if known {
		g.mu.Lock()
		r := g.revisions[in.Revision]
		g.mu.Unlock()
		if r == nil {
			return nil
		}
		return r.admitter.Drain(ctx, uid)
	}
	g.mu.Lock()
	all := make([]*revision, 0, len(g.revisions))
	for _, r := range g.revisions {
		all = append(all, r)
	}
	g.mu.Unlock()
	for _, r := range all { // gone from the fleet, perhaps with requests in flight
		if err := r.admitter.Drain(ctx, uid); err != nil {
			return err
		}
	}
	return nil
}

// link is what is kept per instance: its connections.
type link struct {
	pool    *h1.Pool
	h2      *http2.Transport
	h2c     bool // the instance speaks HTTP/2 without TLS, whatever its revision's settings say
	dialect dialect
}

func newLink(to fleet.Instance, dial h1.DialFunc) *link {
	pool := h1.NewPool(to.Address, dial)
	return &link{pool: pool, h2: newH2(pool), h2c: to.H2C}
}

// Close closes the connections that are idle; the others end with their exchange.
func (l *link) Close() error {
	l.h2.CloseIdleConnections()
	return l.pool.Close()
}

package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway/admit"
	"ebb.dev/ebb/internal/component/gateway/h1"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/demand"
)

// maxFields bounds a request's header fields; their bytes are bounded by the server.
const maxFields = 256

// Header fields by which a request names its revision where the gateway stands for the activator.
const (
	headerRevision  = "Knative-Serving-Revision"
	headerNamespace = "Knative-Serving-Namespace"
	activatorName   = "activator"
)

// clusterSuffix ends the full names of Services.
const clusterSuffix = ".svc.cluster.local"

// front serves the hosts of one side, external or of the cluster.
type front struct {
	g        *Gateway
	external bool
	direct   bool // stands for Knative's activator: requests name their revision
}

// Handler serves HTTP. With external set, hosts that are cluster-local are not known.
func (g *Gateway) Handler(external bool) http.Handler {
	return upgradeH2C(&front{g: g, external: external})
}

// RevisionHandler serves HTTP as Knative's activator does: the header fields Knative-Serving-Namespace
// and Knative-Serving-Revision, or the host of a revision's Service, say which revision a request is
// for, whatever its share of a route. Only the inside of the cluster may reach it: on every other
// side these fields are not believed.
func (g *Gateway) RevisionHandler() http.Handler {
	f := &front{g: g, direct: true}
	return upgradeH2C(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked := r.Header.Get(headerProbe); asked != "" {
			answerProbe(w, asked)
			return
		}
		f.ServeHTTP(w, r)
	}))
}

// answerProbe tells who asks for the activator that it is found.
func answerProbe(w http.ResponseWriter, asked string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if asked != activatorName {
		refuse(w, refusal{http.StatusBadRequest, "BadRequest", "the probe asks for somebody else", ""})
		return
	}
	_, _ = w.Write([]byte(activatorName)) // the client's loss
}

// match finds the rule for a request: by the revision it names, where that is believed, by its host
// among the routes', inside the cluster by the host of a revision's own Service, and then among the
// rules that share hosts.
func (f *front) match(st *state, r *http.Request) (*traffic.Rule, bool) {
	if f.direct {
		named := types.NamespacedName{Namespace: r.Header.Get(headerNamespace), Name: r.Header.Get(headerRevision)}
		if named.Name != "" && named.Namespace != "" {
			return st.only(named)
		}
	}
	rule, ok := st.table.Match(r.Host, f.external)
	if ok {
		return rule, true
	}
	if !f.external {
		if rule, ok = st.only(serviceOf(r.Host)); ok {
			return rule, true
		}
	}
	return st.table.Find(r.Host, r.URL.Path, r.Header)
}

// only is a rule for one revision, if a route leads to it at all.
func (st *state) only(rev types.NamespacedName) (*traffic.Rule, bool) {
	if st.revisions[rev] == nil {
		return nil, false
	}
	return &traffic.Rule{Targets: []traffic.Target{{Revision: rev, Percent: 100}}}, true
}

// serviceOf reads the name of a Service from a host: name.namespace, with or without what follows.
func serviceOf(host string) types.NamespacedName {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	short, whole := strings.CutSuffix(host, clusterSuffix)
	if !whole {
		short = strings.TrimSuffix(host, ".svc")
	}
	name, namespace, ok := strings.Cut(short, ".")
	if !ok || strings.Contains(namespace, ".") {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := f.g.state.Load()
	rule, ok := f.match(st, r)
	if !ok {
		f.g.refuseHost(w, r)
		return
	}
	if probe(w, r) {
		f.g.logProbe(st, rule, r)
		return
	}
	if f.redirect(rule, w, r) {
		return
	}
	if rule.Backend != "" {
		f.serveBackend(w, r, rule)
		return
	}
	c := calls.Get().(*call)
	*c = call{g: f.g, w: w, r: r, front: f, tag: r.Header.Get(headerTag), arrived: time.Now()}
	if c.route(st, rule) {
		c.serve()
	}
	*c = call{}
	calls.Put(c)
}

// route chooses the revision, or refuses the request.
func (c *call) route(st *state, rule *traffic.Rule) bool {
	c.rule = rule
	target, byDefault := choose(rule, c.tag)
	rev := st.revisions[target.Revision]
	if rev == nil {
		c.refuse(refusal{
			http.StatusServiceUnavailable, "RevisionMissing",
			"revision " + target.Revision.String() + " is not there (yet)", retrySoon,
		})
		return false
	}
	c.rev, c.settings, c.defaultRoute = rev, rev.settings.Load(), byDefault
	c.host = c.r.Host
	if rule.HostRewrite != "" {
		c.host = rule.HostRewrite
	}
	return true
}

// reroute looks for another revision after the present one went away while the request waited.
func (c *call) reroute() bool {
	st := c.g.state.Load()
	rule, ok := c.front.match(st, c.r)
	if !ok {
		c.status = http.StatusNotFound
		c.g.refuseHost(c.w, c.r)
		return false
	}
	if rule.Backend != "" { // its revision went away; the next attempt finds the other server
		c.refuse(refusal{http.StatusServiceUnavailable, "RevisionMissing", "the revision is gone", retrySoon})
		return false
	}
	c.leave(time.Now())
	if !c.route(st, rule) {
		return false
	}
	c.entry = admit.Entry{}
	c.enter(time.Now())
	return true
}

// enter counts the request in at its revision.
func (c *call) enter(now time.Time) {
	c.meter = c.rev.meter.Load()
	if c.meter.In(now) {
		c.g.config.Sink.Active(c.rev.name)
	}
}

// leave counts it out.
func (c *call) leave(now time.Time) {
	if c.meter != nil {
		c.meter.Out(now)
		c.meter = nil
	}
}

// choose picks the target by tag header or by share; byDefault says that a rule with tag headers
// was not asked for any of them.
func choose(rule *traffic.Rule, tag string) (target traffic.Target, byDefault bool) {
	n := uint32(0)
	if len(rule.Targets) > 1 || rule.TagHeader != nil {
		n = rand.Uint32() // a share, no secret
	}
	if rule.TagHeader == nil {
		return rule.Pick(n), false
	}
	if tag != "" {
		if t, ok := rule.PickTag(tag, n); ok {
			return t, false
		}
	}
	return rule.Pick(n), true
}

// probe answers those who ask whether the gateway knows a host already.
func probe(w http.ResponseWriter, r *http.Request) bool {
	kind := r.Header.Get(headerProbe)
	if kind == "" {
		return false
	}
	if hash := r.Header.Get(headerHash); hash != "" {
		w.Header().Set(headerHash, hash)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	return true
}

// calls keeps call structs for reuse.
var calls = sync.Pool{New: func() any { return &call{} }}

// call is one request on its way.
type call struct {
	g            *Gateway
	w            http.ResponseWriter
	r            *http.Request
	front        *front
	tag          string // the client asked for by header
	rule         *traffic.Rule
	rev          *revision
	meter        *demand.Meter // set while the request counts
	settings     *traffic.Settings
	host         string // for the application
	uri          string
	upgrade      string // the protocol asked for, if any
	defaultRoute bool
	fallen       bool       // goes where its route's requests go that find no instance
	late         *lateStart // of a response whose time begins when the request is sent, nil for others

	entry   admit.Entry
	slot    *admit.Slot // held at present
	last    *admit.Slot // held last
	arrived time.Time
	granted time.Time
	total   time.Time // end of the revision's timeout, zero for none
	deaths  int       // instances that died with this request
	status  int       // of the response, 0 until it is known
	reason  string    // why the gateway answered itself, if it did
	sent    int64     // bytes of the response's body
	body    body

	spans    *spans    // nil while traces are off
	switched time.Time // when a tunnel began, zero without one
}

// statusClientGone stands for a request whose client left before the response, as nginx says it.
const statusClientGone = 499

// serve takes the request from arrival to its last byte.
func (c *call) serve() {
	c.enter(c.arrived)
	c.startTrace()
	defer func() {
		now := time.Now()
		c.leave(now)
		c.body.release(c.g)
		c.g.metrics.observe(c, now)
		c.log(now)
		c.endTrace(now)
	}()
	if c.standIn() || !c.prepare() {
		return
	}
	for c.admit() && c.forward() == again {
	}
}

// prepare readies what is sent to the instance.
func (c *call) prepare() bool {
	if len(c.r.Header) > maxFields {
		c.refuse(refusal{
			http.StatusRequestHeaderFieldsTooLarge, "TooManyHeaders",
			"the request has too many header fields", "",
		})
		return false
	}
	c.uri = c.r.RequestURI
	if !strings.HasPrefix(c.uri, "/") && (c.uri != "*" || c.r.Method != http.MethodOptions) {
		c.uri = c.r.URL.RequestURI() // absolute form
	}
	if h1.CheckTarget(c.r.Method, c.uri) != nil || c.r.Method == http.MethodConnect {
		c.refuse(refusal{http.StatusBadRequest, "BadRequest", "the request line is not valid", ""})
		return false
	}
	c.upgrade = upgradeAsked(c.r)
	c.setHeaders()
	return c.takeBody()
}

// admit gets a slot, or refuses the request.
func (c *call) admit() bool {
	a := c.rev.admitter
	if c.slot = a.Try(&c.entry); c.slot != nil {
		c.begin()
		return true
	}
	ctx, stop := c.watchClient()
	defer stop()
	slot, err := a.Admit(ctx, &c.entry, c.patience())
	if errors.Is(err, admit.ErrGone) && !c.fallen {
		return c.reroute() && c.admit()
	}
	if errors.Is(err, admit.ErrTimeout) && c.fallBack() {
		return c.admit()
	}
	if err != nil {
		c.refuseAdmission(err)
		return false
	}
	c.slot = slot
	c.begin()
	return true
}

// begin starts the revision's clock.
func (c *call) begin() {
	c.granted, c.last = time.Now(), c.slot
	c.total = time.Time{}
	if c.settings.Timeout > 0 {
		c.total = c.granted.Add(c.settings.Timeout)
	}
	if s := c.settings.Service; s != nil && s.Deadline > 0 {
		c.total = earlier(c.total, c.arrived.Add(s.Deadline))
	}
}

// patience is how long the request may still wait for an instance.
func (c *call) patience() time.Duration {
	if c.settings.Service != nil {
		return c.servicePatience()
	}
	limit := c.g.config.ActivationTimeout
	if limit == 0 {
		limit = max(minActivation, c.settings.Timeout)
	}
	return time.Until(c.arrived.Add(limit))
}

// watchEvery is how often a waiting request whose body is unread looks whether its client is there.
// net/http watches the connection only once the body was read.
const watchEvery = 100 * time.Millisecond

// watchClient returns a context that also ends when the client leaves while its body is unread.
func (c *call) watchClient() (context.Context, func()) {
	ctx := c.r.Context()
	conn := clientConn(ctx)
	if c.body.stream == nil || conn == nil || c.r.ProtoMajor != 1 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if h1.PeerClosed(conn) {
					cancel()
					return
				}
			case <-ended:
				return
			}
		}
	}()
	return ctx, func() { close(ended); cancel() }
}

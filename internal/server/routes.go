package server

import (
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/demand"
)

// routes shows the gateway's routes to Services to the triggers that count their requests.
type routes struct {
	demand *demand.Book

	mu      sync.Mutex // guards the fields below; not held while watchers are told
	table   *traffic.Table
	totals  map[types.NamespacedName]int64 // of requests, by pseudo-revision
	changes watchers
	came    watchers
}

// watchers are told of pseudo-revisions.
type watchers map[types.NamespacedName]map[*func()]struct{}

func newRoutes(book *demand.Book) *routes {
	return &routes{demand: book, totals: map[types.NamespacedName]int64{}, changes: watchers{}, came: watchers{}}
}

var _ trigger.Routes = (*routes)(nil)

// set takes a new table over, and tells of the routes that differ.
func (r *routes) set(t *traffic.Table) {
	r.mu.Lock()
	before := r.table
	r.table = t
	var tell []func()
	for rev := range r.changes {
		was, _ := before.Settings(rev)
		is, _ := t.Settings(rev)
		if !reflect.DeepEqual(was.Service, is.Service) {
			tell = append(tell, r.changes.of(rev)...)
		}
	}
	for rev := range r.totals {
		if _, there := t.Settings(rev); !there {
			delete(r.totals, rev)
		}
	}
	r.mu.Unlock()
	for _, fn := range tell {
		fn()
	}
}

// request tells that a request came after quiet, or waits.
func (r *routes) request(rev types.NamespacedName) {
	r.mu.Lock()
	tell := r.came.of(rev)
	r.mu.Unlock()
	for _, fn := range tell {
		fn()
	}
}

// Route implements trigger.Routes.
func (r *routes) Route(name types.NamespacedName) (traffic.Service, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.table.Settings(traffic.PseudoRevision(name))
	if !ok || s.Service == nil {
		return traffic.Service{}, false
	}
	return *s.Service, true
}

// Requests implements trigger.Routes.
func (r *routes) Requests(name types.NamespacedName) trigger.Requests {
	rev := traffic.PseudoRevision(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.table.Settings(rev); !there {
		return trigger.Requests{Quiet: true}
	}
	meter := r.demand.Meter(rev)
	sample := meter.Take(time.Now())
	r.totals[rev] += sample.Requests
	return trigger.Requests{InFlight: sample.InFlight, Total: r.totals[rev], Quiet: meter.Rest()}
}

// WatchRoute implements trigger.Routes.
func (r *routes) WatchRoute(name types.NamespacedName, changed func()) (stop func()) {
	return r.watch(r.changes, traffic.PseudoRevision(name), changed)
}

// WatchRequests implements trigger.Routes.
func (r *routes) WatchRequests(name types.NamespacedName, came func()) (stop func()) {
	return r.watch(r.came, traffic.PseudoRevision(name), came)
}

func (r *routes) watch(by watchers, rev types.NamespacedName, fn func()) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if by[rev] == nil {
		by[rev] = map[*func()]struct{}{}
	}
	by[rev][&fn] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if delete(by[rev], &fn); len(by[rev]) == 0 {
			delete(by, rev)
		}
	}
}

// of lists who is told of a pseudo-revision; the owner's mu is held.
func (w watchers) of(rev types.NamespacedName) []func() {
	var out []func()
	for fn := range w[rev] {
		out = append(out, *fn)
	}
	return out
}

// Package fleet is the one view in memory of the instances behind every revision.
//
// Two sources fill it. Local is a node in this process, which knows first and is believed about
// readiness, draining and the address. API is the watch on pods: it speaks for other nodes, may add
// that an instance drains or is gone, and never takes back what Local said. Readers get snapshots
// that are replaced whole, without a lock.
package fleet

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Source says who observed an instance.
type Source uint8

const (
	// API is the watch on pods.
	API Source = iota
	// Local is a node in this process.
	Local
	sources
)

// keptGone bounds how many removed instances are remembered so that a late report of the other
// source cannot bring them back.
const keptGone = 4096

// An Instance is one running copy of a revision: its pod.
type Instance struct {
	// ID is the pod's UID.
	ID types.UID
	// Pod is the pod's name; its namespace is the revision's.
	Pod string
	// Revision is what it is a copy of.
	Revision types.NamespacedName
	// Address is where the application listens.
	Address netip.AddrPort
	// Ready says that its readiness probe passes.
	Ready bool
	// Draining says that no new request may go there.
	Draining bool
	// H2C says that it speaks HTTP/2 without TLS, where its revision does not tell. It never changes.
	H2C bool
	// Stamps tells when each step of its start was done (bound, sandbox, started, ready). It must
	// not be changed after it was handed over.
	Stamps map[string]time.Time
}

// stampStarted is the step of Stamps after which containers run.
const stampStarted = "started"

// Fleet holds the instances of all revisions. Its methods are safe for concurrent use.
type Fleet struct {
	mu      sync.Mutex // guards all below except the snapshots' reading; never held in a callback
	records map[types.UID]*record
	members map[types.NamespacedName][]*record // oldest first
	gone    []types.UID                        // ring of removed instances
	goneAt  int
	views   sync.Map // types.NamespacedName -> *view
	notify  atomic.Pointer[[]func(types.NamespacedName)]
}

// view is a revision's snapshot; the slice is never changed once stored.
type view struct {
	instances []Instance
	ready     int
}

// record is what is known of one instance.
type record struct {
	said    [sources]*Instance
	gone    [sources]bool
	drained bool
	merged  Instance
	dead    bool // removed; kept to refuse late reports
}

// New returns an empty Fleet.
func New() *Fleet {
	return &Fleet{
		records: map[types.UID]*record{},
		members: map[types.NamespacedName][]*record{},
	}
}

// Observe takes in what src sees of an instance now.
func (f *Fleet) Observe(src Source, in Instance) {
	f.mu.Lock()
	r := f.records[in.ID]
	if r == nil {
		r = &record{}
		f.records[in.ID] = r
	}
	if r.dead || r.gone[src] {
		f.mu.Unlock()
		return
	}
	known := r.merged.ID != ""
	r.said[src] = &in
	if !known {
		f.members[in.Revision] = append(f.members[in.Revision], r)
	}
	changed := r.merge() || !known
	rev := r.merged.Revision
	if changed {
		f.publish(rev)
	}
	f.mu.Unlock()
	if changed {
		f.tell(rev)
	}
}

// Remove says that src no longer has the instance. Either source's word ends it: Local knows that
// the process is gone, API that nobody wants it any more.
func (f *Fleet) Remove(src Source, id types.UID) {
	f.mu.Lock()
	r := f.records[id]
	if r == nil {
		r = &record{}
		f.records[id] = r
	}
	r.gone[src] = true
	alive := !r.dead
	rev := r.merged.Revision
	if alive {
		r.dead = true
		f.bury(id)
		f.members[rev] = slices.DeleteFunc(f.members[rev], func(o *record) bool { return o == r })
		if len(f.members[rev]) == 0 {
			delete(f.members, rev)
		}
	}
	changed := alive && r.merged.ID != ""
	if changed {
		f.publish(rev)
	}
	f.mu.Unlock()
	if changed {
		f.tell(rev)
	}
}

// Drain marks an instance as draining for good and returns it; false means it is not known.
func (f *Fleet) Drain(id types.UID) (Instance, bool) {
	f.mu.Lock()
	r := f.records[id]
	if r == nil || r.dead {
		f.mu.Unlock()
		return Instance{}, false
	}
	r.drained = true
	changed := r.merge()
	in := r.merged
	if changed {
		f.publish(in.Revision)
	}
	f.mu.Unlock()
	if changed {
		f.tell(in.Revision)
	}
	return in, true
}

// Instances returns the revision's instances, oldest first. The slice is shared: do not change it.
func (f *Fleet) Instances(rev types.NamespacedName) []Instance {
	if v, ok := f.views.Load(rev); ok {
		return v.(*view).instances
	}
	return nil
}

// Ready counts the instances that can take requests: ready and not draining.
func (f *Fleet) Ready(rev types.NamespacedName) int {
	if v, ok := f.views.Load(rev); ok {
		return v.(*view).ready
	}
	return 0
}

// Counts says how many instances of a revision are in which state, in Knative's terms.
type Counts struct {
	Ready    int // can take requests
	NotReady int // all others, those below included

	Pending     int // their containers do not run yet
	Terminating int // take no new requests any more
}

// Counts counts the revision's instances.
func (f *Fleet) Counts(rev types.NamespacedName) (c Counts) {
	for _, in := range f.Instances(rev) {
		switch {
		case in.Draining:
			c.Terminating++
		case in.Ready:
			c.Ready++
			continue
		case in.pending():
			c.Pending++
		}
		c.NotReady++
	}
	return c
}

// pending says that the instance's containers do not run yet, as far as is known: the API alone tells
// no step but the address.
func (in *Instance) pending() bool {
	if in.Stamps == nil {
		return !in.Address.IsValid()
	}
	return in.Stamps[stampStarted].IsZero()
}

// Subscribe has fn called after each change of a revision's instances, by the goroutine that made
// the change, without locks held; it must not block. Calls may arrive in another order than the
// changes, so fn reads what it needs with Instances.
func (f *Fleet) Subscribe(fn func(rev types.NamespacedName)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var fns []func(types.NamespacedName)
	if old := f.notify.Load(); old != nil {
		fns = append(fns, *old...)
	}
	fns = append(fns, fn)
	f.notify.Store(&fns)
}

// tell calls the subscribers. The caller holds no lock.
func (f *Fleet) tell(rev types.NamespacedName) {
	if fns := f.notify.Load(); fns != nil {
		for _, fn := range *fns {
			fn(rev)
		}
	}
}

// publish replaces the revision's snapshot. The caller holds mu.
func (f *Fleet) publish(rev types.NamespacedName) {
	records := f.members[rev]
	if len(records) == 0 {
		f.views.Delete(rev)
		return
	}
	v := &view{instances: make([]Instance, 0, len(records))}
	for _, r := range records {
		v.instances = append(v.instances, r.merged)
		if r.merged.Ready && !r.merged.Draining {
			v.ready++
		}
	}
	f.views.Store(rev, v)
}

// bury remembers a removed instance and forgets the one removed keptGone removals ago. The caller
// holds mu.
func (f *Fleet) bury(id types.UID) {
	if len(f.gone) < keptGone {
		f.gone = append(f.gone, id)
		return
	}
	delete(f.records, f.gone[f.goneAt])
	f.gone[f.goneAt] = id
	f.goneAt = (f.goneAt + 1) % keptGone
}

// merge forms one instance of what the sources said and reports whether it changed.
func (r *record) merge() bool {
	api, local := r.said[API], r.said[Local]
	next := Instance{}
	switch {
	case local != nil:
		next = *local
		if api != nil {
			next.Draining = next.Draining || api.Draining
			if !next.Address.IsValid() {
				next.Address = api.Address
			}
			if next.Stamps == nil {
				next.Stamps = api.Stamps
			}
		}
	case api != nil:
		next = *api
	}
	next.Draining = next.Draining || r.drained
	if r.merged.ID != "" {
		next.Revision = r.merged.Revision // an instance never changes its revision
	}
	changed := !same(r.merged, next)
	r.merged = next
	return changed
}

// same compares all that readers can tell apart; maps of stamps only grow.
func same(a, b Instance) bool {
	return a.ID == b.ID && a.Pod == b.Pod && a.Address == b.Address && a.Ready == b.Ready &&
		a.Draining == b.Draining && len(a.Stamps) == len(b.Stamps)
}

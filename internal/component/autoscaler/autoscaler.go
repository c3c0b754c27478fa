// Package autoscaler keeps every revision at the number of instances that domain/scale decides.
//
// It acts on edges and averages on ticks. A request that waits (Wake) brings the next evaluation
// forward, with the present in-flight count standing for the second that is not over yet; nothing is
// recorded by it. What was measured is recorded once a second, and decided upon every two, for those
// revisions only whose decision time alone can still change. All of them share one loop with one
// timer, which stands still while there are none: a revision at zero, or resting at its minimum
// scale, costs nothing but memory.
//
//	edge ──┐                                   ┌─► Subscribe
//	tick ──┴─► scale.State.Decide ─► Decision ─┴─► write (parallel, latest wins) ─► Scaler
package autoscaler

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/demand"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/telemetry/series"
)

// A Fleet tells how many instances are ready. *fleet.Fleet is one.
type Fleet interface {
	// Ready counts the ready instances of a revision, draining ones not included.
	Ready(revision types.NamespacedName) int
	// Counts tells how many instances of a revision are in which state.
	Counts(revision types.NamespacedName) fleet.Counts
	// Subscribe has fn called, without locks held, after a revision's instances changed.
	Subscribe(fn func(revision types.NamespacedName))
}

// A Scaler asks for instances. Its methods may be called from several goroutines at once, even for
// one revision.
type Scaler interface {
	// Scale asks for that many instances of the revision; asking for what is there changes nothing.
	// The reason is for people. ErrNotFound means that there is nothing to scale (yet).
	Scale(ctx context.Context, revision types.NamespacedName, replicas int32, reason string) error
	// Replicas returns how many instances are asked for at present, or ErrNotFound.
	Replicas(ctx context.Context, revision types.NamespacedName) (int32, error)
}

// Config is what an Autoscaler is made of. All fields but Registerer and Numbers are needed.
type Config struct {
	Fleet      Fleet
	Demand     *demand.Book
	Scaler     Scaler
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Numbers    *series.Group // gets the metrics that Knative has, too
}

// An Autoscaler decides about all revisions it was told of. Its methods may be called from many
// goroutines and do not block; decisions made before Run are written when it begins.
//
// Locks are taken in the order revision.mu, then mu or liveMu; listeners are called without any.
type Autoscaler struct {
	fleet   Fleet
	demand  *demand.Book
	scaler  Scaler
	log     *slog.Logger
	metrics *metrics
	epoch   time.Time // see now

	mu        sync.RWMutex // guards the fields below; held for look-ups only
	revisions map[types.NamespacedName]*revision
	floors    map[types.NamespacedName]scale.Floor // of revisions known or not
	listeners []func(types.NamespacedName)
	running   context.Context // of Run while it runs; the calls it starts end with it

	calls sync.WaitGroup // of the Scaler, under way

	liveMu sync.Mutex // guards live
	live   map[*revision]struct{}
	kick   chan struct{} // tells the loop that live is no longer empty
}

var _ demand.Sink = (*Autoscaler)(nil)

// New returns an autoscaler that knows no revisions.
func New(c Config) *Autoscaler {
	a := &Autoscaler{
		fleet:     c.Fleet,
		demand:    c.Demand,
		scaler:    c.Scaler,
		log:       c.Log,
		epoch:     time.Now(),
		revisions: make(map[types.NamespacedName]*revision),
		floors:    make(map[types.NamespacedName]scale.Floor),
		live:      make(map[*revision]struct{}),
		kick:      make(chan struct{}, 1),
	}
	a.metrics = newMetrics(c.Registerer)
	if c.Numbers != nil {
		c.Numbers.Add(scope, a.tell)
	}
	c.Fleet.Subscribe(a.fleetChanged)
	return a
}

// Subscribe has fn called after what State returns for a revision changed in a way that shows in
// objects: the wanted number, the activity, the sign of the excess burst capacity. Calls come from
// many goroutines, also from within SetRevision, and must not block.
func (a *Autoscaler) Subscribe(fn func(revision types.NamespacedName)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(slices.Clip(a.listeners), fn)
}

// SetRevision begins to scale a revision, or goes on with a changed spec. The first time, the number
// of instances it has is asked from the Scaler before anything is decided.
//
// A spec of another class than KPA is somebody else's to scale and removes the revision.
func (a *Autoscaler) SetRevision(key types.NamespacedName, spec scale.Spec) {
	if spec.Class != scale.KPA {
		a.RemoveRevision(key)
		return
	}
	a.mu.Lock()
	r, known := a.revisions[key]
	if !known {
		r = &revision{key: key, spec: spec, floor: a.floors[key], writer: writer{replicas: scale.Unknown, written: scale.Unknown}}
		a.revisions[key] = r
	}
	running := a.running != nil
	a.mu.Unlock()
	switch {
	case known:
		a.respec(r, spec)
	case running:
		a.begin(r)
	}
}

// SetFloor has a revision keep a number of instances whatever its requests ask for; the zero Floor ends
// that. It may be told before the revision is.
func (a *Autoscaler) SetFloor(key types.NamespacedName, floor scale.Floor) {
	a.mu.Lock()
	before := a.floors[key]
	if floor.Count > 0 {
		a.floors[key] = floor
	} else {
		floor = scale.Floor{}
		delete(a.floors, key)
	}
	r := a.revisions[key]
	a.mu.Unlock()
	if r != nil && floor != before {
		a.raise(r)
	}
}

// RemoveRevision ends scaling of a revision; its instances stay as they are.
func (a *Autoscaler) RemoveRevision(key types.NamespacedName) {
	a.mu.Lock()
	r := a.revisions[key]
	delete(a.revisions, key)
	a.mu.Unlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.cancelRetry()
	a.rest(r)
}

// Observe tells that so many instances were seen to be asked for, by whomever. If that is not what
// was decided, it is put right. Telling it is optional and may come late.
func (a *Autoscaler) Observe(key types.NamespacedName, replicas int32) {
	r := a.find(key)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == nil || r.flights > 0 || replicas == r.written {
		return
	}
	r.written = replicas
	a.push(r)
}

// Wake implements demand.Sink: a request waits, so the revision is evaluated at once.
func (a *Autoscaler) Wake(key types.NamespacedName) {
	if r := a.find(key); r != nil {
		a.wake(r)
	}
}

// Active implements demand.Sink: after quiet there are requests again, so the revision is measured
// again.
func (a *Autoscaler) Active(key types.NamespacedName) {
	r := a.find(key)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a.enliven(r, a.now())
}

// fleetChanged moves a revision's activity on when its instances changed.
func (a *Autoscaler) fleetChanged(key types.NamespacedName) {
	r := a.find(key)
	if r == nil {
		return
	}
	r.mu.Lock()
	changed := false
	if r.state != nil {
		now, ready := a.now(), a.fleet.Ready(key)
		if changed = r.state.Observe(now, r.decision.Want, ready); changed {
			a.enliven(r, now)
		}
		a.suspect(r, ready)
	}
	r.mu.Unlock()
	a.notify(r, changed)
}

func (a *Autoscaler) find(key types.NamespacedName) *revision {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.revisions[key]
}

// notify tells the listeners if changed.
func (a *Autoscaler) notify(r *revision, changed bool) {
	if !changed {
		return
	}
	a.mu.RLock()
	listeners := a.listeners
	a.mu.RUnlock()
	for _, fn := range listeners {
		fn(r.key)
	}
}

// spawn runs fn beside, with the context of Run, and reports whether it did: not before Run nor after.
func (a *Autoscaler) spawn(fn func(context.Context)) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	ctx := a.running
	if ctx == nil || ctx.Err() != nil {
		return false
	}
	a.calls.Go(func() { fn(ctx) })
	return true
}

// now is the time by a clock that never jumps, so that a corrected wall clock neither empties windows
// nor fills a bucket twice.
func (a *Autoscaler) now() time.Time { return a.epoch.Add(time.Since(a.epoch)) }

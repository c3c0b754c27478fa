package autoscaler

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/scale"
)

// A revision is what is known of one revision.
type revision struct {
	key types.NamespacedName

	mu       sync.Mutex // guards all below; held for arithmetic, never while waiting for anything
	spec     scale.Spec
	floor    scale.Floor  // in force, or from start on
	state    *scale.State // nil until the present number of instances is known
	decision scale.Decision
	since    time.Time // when decision.Want last changed
	gone     bool      // removed; nothing is decided or written any more
	edge     edge

	live    bool  // in Autoscaler.live
	rested  bool  // was live before and had no requests since
	pending int64 // first second whose measure is not recorded yet, while live

	writer
	stamps
}

// An edge remembers the last evaluation brought forward, since a second one for less demand within
// the same second could not wish for more.
type edge struct {
	second   int64
	inFlight int64
	ready    int
}

// stamps are the moments of the last wake from zero, by the wall clock.
type stamps struct {
	woken, decided, finished time.Time
}

// begin finds out how many instances a revision has and makes its first decision.
func (a *Autoscaler) begin(r *revision) {
	a.spawn(func(ctx context.Context) {
		for wait := firstBackOff; !r.removed(); wait = min(2*wait, lastBackOff) {
			replicas, err := a.scaler.Replicas(ctx, r.key)
			if errors.Is(err, ErrNotFound) {
				replicas, err = scale.Unknown, nil
			}
			if err == nil {
				a.start(r, replicas)
				return
			}
			if wait == firstBackOff {
				a.log.Warn("asking for the scale of a revision; will ask again", "revision", r.key, "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	})
}

func (r *revision) removed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// start makes the first decision about a revision that has that many instances.
func (a *Autoscaler) start(r *revision, replicas int32) {
	r.mu.Lock()
	if r.gone {
		r.mu.Unlock()
		return
	}
	now := a.now()
	instances := replicas
	if ready := a.fleet.Ready(r.key); ready > int(instances) && ready > 0 {
		instances = int32(min(ready, math.MaxInt32))
	}
	r.state = scale.NewState(r.spec, instances, now)
	r.state.Raise(r.floor)
	r.decision.Want, r.since = scale.Unknown, now
	r.replicas, r.written = replicas, replicas
	a.enliven(r, now)
	a.decide(r, now, a.demand.Meter(r.key).InFlight() > 0)
	r.mu.Unlock()
	a.notify(r, true)
}

// respec puts a changed spec in force.
func (a *Autoscaler) respec(r *revision, spec scale.Spec) {
	r.mu.Lock()
	old := r.spec
	spec.Before, old.Before = "", ""
	changed := false
	if spec != old {
		r.spec = spec
		if r.state != nil {
			now := a.now()
			r.state.Update(spec)
			a.enliven(r, now)
			changed = a.decide(r, now, false)
		}
	}
	r.mu.Unlock()
	a.notify(r, changed)
}

// raise puts a changed floor in force: the last one that was told, should several be under way.
func (a *Autoscaler) raise(r *revision) {
	r.mu.Lock()
	a.mu.RLock()
	r.floor = a.floors[r.key]
	a.mu.RUnlock()
	changed := false
	if r.state != nil && !r.gone {
		now := a.now()
		r.state.Raise(r.floor)
		a.enliven(r, now)
		changed = a.decide(r, now, false)
	}
	r.mu.Unlock()
	a.notify(r, changed)
}

// wake evaluates a revision for which a request waits.
func (a *Autoscaler) wake(r *revision) {
	r.mu.Lock()
	if r.state == nil || r.gone {
		r.mu.Unlock() // start will see the request in flight
		return
	}
	now := a.now()
	e := edge{
		second:   now.Unix(),
		inFlight: max(1, a.demand.Meter(r.key).InFlight()),
		ready:    a.fleet.Ready(r.key),
	}
	if r.edge.second == e.second && r.edge.ready == e.ready && r.edge.inFlight >= e.inFlight && r.replicas > 0 {
		r.mu.Unlock()
		return
	}
	r.edge = e
	fromZero := r.replicas <= 0
	if fromZero {
		r.stamps = stamps{woken: time.Now()}
	}
	a.enliven(r, now)
	changed := a.decide(r, now, true)
	if fromZero {
		r.decided = time.Now()
	}
	a.mend(r, now)
	if r.retry != nil && time.Since(r.retried) > firstBackOff<<4 {
		a.push(r)
	}
	r.mu.Unlock()
	a.notify(r, changed)
}

// decide evaluates the revision now, has the outcome written if it is news, and reports whether it
// shows in State. With open, the requests at hand stand for the second that is not over. r.mu is
// held.
func (a *Autoscaler) decide(r *revision, now time.Time, open bool) bool {
	meter := a.demand.Meter(r.key)
	o := scale.Observation{
		Now:         now,
		Ready:       a.fleet.Ready(r.key),
		Replicas:    r.replicas,
		InFlight:    meter.InFlight(),
		BufferedFor: math.MaxInt64, // the gateway is always in the path
	}
	if open {
		o.InFlight = max(1, o.InFlight)
		value := float64(o.InFlight)
		if r.spec.Metric == scale.RPS {
			value = float64(max(1, meter.Arrived()))
		}
		o.Open = &value
	}
	before, initialized := r.decision, r.state.Initialized()
	activity, _, why := r.state.Activity()

	r.decision = r.state.Decide(o)
	if r.decision.Want != before.Want {
		r.since = now
	}
	if n := r.decision.Replicas; n != r.replicas && n != scale.Unknown {
		r.replicas = n
		a.push(r)
	}
	after, _, reason := r.state.Activity()
	return r.decision.Want != before.Want || after != activity || reason != why ||
		r.state.Initialized() != initialized ||
		(r.decision.Wish.ExcessBurst < 0) != (before.Wish.ExcessBurst < 0)
}

package scale

import "time"

// Unknown stands for a number of instances that is not known or not decided.
const Unknown int32 = -1

// A State is what is remembered about one revision between decisions. It is not safe for use by
// several goroutines at once.
type State struct {
	spec          Spec
	stable, burst Window

	panicSince time.Time // zero when not panicking
	peak       int32     // the largest wish since panic began
	delay      delay     // recent wishes, when the spec asks for a delay
	floor      Floor
	loaded     time.Time // when a value above zero was last recorded

	activity    Activity
	since       time.Time // when activity began
	why         Reason    // of activity
	initialized bool      // the initial scale was reached once
}

// NewState begins to decide about a revision that now has the given number of instances, Unknown if
// nobody has made any yet.
//
// Nothing is known of the demand before now. So more than one instance are kept as if they had been
// wished for in panic until a stable window has passed, one is kept as if it had just become ready,
// and none stays none.
func NewState(spec Spec, instances int32, now time.Time) *State {
	s := &State{
		spec:        spec,
		stable:      NewWindow(spec.StableWindow, spec.Aggregation),
		burst:       NewWindow(spec.PanicWindow, spec.Aggregation),
		delay:       newDelay(spec.ScaleDownDelay),
		initialized: spec.Initialized || spec.Before == Active,
		since:       now,
	}
	if instances > 1 {
		s.panicSince, s.peak = now, instances
	}
	s.activity, s.why = s.begin(instances)
	return s
}

func (s *State) begin(instances int32) (Activity, Reason) {
	none := instances == 0
	switch {
	case none && (s.initialized || !s.spec.Reachable || s.spec.Initial == 0):
		return Inactive, NoTraffic
	case s.spec.Before == Inactive:
		return Inactive, NoTraffic
	case s.spec.Before == Active:
		return Active, Demand
	default:
		return Activating, Queued
	}
}

// Update puts spec in the place of the one before, keeping what was recorded. What spec says about
// the time before this process does not matter any more.
func (s *State) Update(spec Spec) {
	s.stable.Resize(spec.StableWindow, spec.Aggregation)
	s.burst.Resize(spec.PanicWindow, spec.Aggregation)
	if spec.ScaleDownDelay != s.spec.ScaleDownDelay {
		s.delay = newDelay(spec.ScaleDownDelay)
	}
	if spec.Metric != s.spec.Metric {
		s.stable.Release()
		s.burst.Release()
	}
	s.initialized = s.initialized || spec.Initialized
	s.spec = spec
}

// Raise puts a floor in the place of the one before.
func (s *State) Raise(f Floor) { s.floor = f }

// Record adds what was measured of the spec's metric in the second that at lies in. Zeros are worth
// recording while there are instances: they say that nothing came, where silence says nothing.
func (s *State) Record(at time.Time, value float64) {
	s.stable.Record(at, value)
	s.burst.Record(at, value)
	if value > 0 && at.After(s.loaded) {
		s.loaded = at
	}
}

// WasIdle fills windows in which nothing is recorded with zeros up to now, for a revision that had
// instances and no requests while nobody recorded.
func (s *State) WasIdle(now time.Time) {
	for _, w := range []*Window{&s.stable, &s.burst} {
		if w.Empty(now) {
			w.Record(now.Add(-w.Length()), 0)
			w.Record(now.Add(-time.Second), 0)
		}
	}
}

// Spec returns the spec in force.
func (s *State) Spec() Spec { return s.spec }

// Initialized tells whether the initial scale was reached once.
func (s *State) Initialized() bool { return s.initialized }

// Activity returns how far the revision is from serving, since when, and why.
func (s *State) Activity() (Activity, time.Time, Reason) { return s.activity, s.since, s.why }

// PanicSince returns when demand was last over the panic threshold; zero when not panicking.
func (s *State) PanicSince() time.Time { return s.panicSince }

// Quiet reports whether time alone cannot change what d decided: no demand is remembered, there is no
// panic, no delay, nothing waits for a deadline and nothing is left to shrink.
func (s *State) Quiet(now time.Time, d Decision) bool {
	low, _ := s.low()
	return now.Sub(s.loaded) > s.spec.StableWindow+time.Second &&
		s.panicSince.IsZero() && d.Again.IsZero() && d.Wish.Count <= low
}

// Forget drops what was recorded and gives its memory back.
func (s *State) Forget() {
	s.stable.Release()
	s.burst.Release()
	s.delay = newDelay(s.spec.ScaleDownDelay)
}

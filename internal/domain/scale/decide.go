package scale

import "time"

// An Observation is what is seen at the moment of a decision.
type Observation struct {
	Now time.Time
	// Ready is how many instances are ready, draining ones not counted.
	Ready int
	// Replicas is how many instances were last asked for, Unknown if that is not known.
	Replicas int32
	// InFlight is how many requests are in flight, waiting ones included. The last instance does not
	// go while there is one.
	InFlight int64
	// Open, if not nil, stands for the second that Now lies in, which is not recorded yet.
	Open *float64
	// BufferedFor is how long requests have gone through something that can hold them while there is
	// no instance.
	BufferedFor time.Duration
}

// A Decision says how many instances there should be, and why.
type Decision struct {
	// Want is the number to publish as wanted, Unknown while there is nothing to go by. It may be 0
	// while the last instances are still kept.
	Want int32
	// Replicas is the number to ask for; it equals the observed one if nothing is to be changed.
	Replicas int32
	// Reason names the rule that decided; Message says it in words.
	Reason Reason
	// Wish is what demand alone asked for.
	Wish Wish
	// Again is when to decide again even if nothing happens; zero for no need.
	Again time.Time

	// what Message tells about
	spec  Spec
	floor Floor
	ready int
}

// Decide says how many instances there should be now, and moves the revision's activity on.
func (s *State) Decide(o Observation) Decision {
	d := Decision{Wish: s.Wish(o.Now, o.Ready, o.Open), spec: s.spec, floor: s.floor, ready: o.Ready}
	d.Want, d.Reason = d.Wish.Count, d.Wish.Reason
	if d.Want == 0 && o.InFlight > 0 {
		d.Want, d.Reason = 1, InFlight
	}
	d.Want, d.Reason = s.bound(d.Want, d.Reason)
	d.Replicas = d.Want
	if d.Want == 0 {
		s.toZero(&d, o)
	}
	s.observe(o.Now, d.Want, o.Ready)
	return d
}

// Observe moves the revision's activity on when the number of ready instances has changed, with want
// being the last decision's. It reports whether the activity or its reason changed.
func (s *State) Observe(now time.Time, want int32, ready int) bool {
	before, why := s.activity, s.why
	s.observe(now, want, ready)
	return s.activity != before || s.why != why
}

// bound keeps want between the bounds. A revision that nobody can reach has no lower bound, and one
// that has not reached its initial scale yet is bound by that, too.
func (s *State) bound(want int32, reason Reason) (int32, Reason) {
	low, why := s.low()
	switch {
	case want < low:
		return low, why
	case s.spec.Max > 0 && want > s.spec.Max:
		return s.spec.Max, MaxScaled
	default:
		return want, reason
	}
}

// low returns the lower bound and its reason.
func (s *State) low() (int32, Reason) {
	if !s.spec.Reachable {
		return 0, MinScaled
	}
	low, why := s.spec.Min, MinScaled
	if !s.initialized && s.spec.Initial > max(1, s.spec.Min) {
		low, why = s.spec.Initial, InitialScaled
	}
	if floor := s.ceiled(s.floor.Count); floor > low {
		low, why = floor, Asked
	}
	return low, why
}

// ceiled is a number within the upper bound.
func (s *State) ceiled(n int32) int32 {
	if s.spec.Max > 0 {
		return min(n, s.spec.Max)
	}
	return n
}

// toZero lets the last instances go only with patience: instances on their way up get their time, a
// revision stays active for a stable window at least, and the last one is retained as asked for.
func (s *State) toZero(d *Decision, o Observation) {
	if !s.spec.ScaleToZero {
		d.Want, d.Replicas, d.Reason = 1, 1, ScaleToZeroOff
		return
	}
	if s.activity == Activating {
		s.giveUp(d, o)
		return
	}
	if s.activity == Active {
		if end := s.since.Add(s.spec.StableWindow); o.Now.Before(end) {
			d.Want, d.Replicas, d.Reason, d.Again = 1, 1, StayingActive, end
			return
		}
		s.become(Inactive, NoTraffic, o.Now)
	}
	s.letGo(d, o)
}

// giveUp keeps what there is until the activation has had its time, then lets it go.
func (s *State) giveUp(d *Decision, o Observation) {
	if o.Now.Sub(s.since) > s.spec.ActivationTimeout {
		d.Reason = TimedOut
		return
	}
	d.Want, d.Replicas, d.Reason = Unknown, o.Replicas, ActivationPending
	d.Again = s.since.Add(s.spec.ActivationTimeout + time.Nanosecond)
	if s.spec.Reachable && !s.initialized {
		d.Replicas = max(o.Replicas, s.spec.Initial)
		d.Reason = InitialScaled
	}
}

// letGo decides about the last instances of an inactive revision.
func (s *State) letGo(d *Decision, o Observation) {
	retention := s.spec.Retention
	if !s.spec.Reachable {
		retention = 0
	}
	inactive := o.Now.Sub(s.since)
	var rest time.Duration
	switch {
	case inactive >= max(s.spec.Grace, retention):
	case inactive < retention:
		rest = retention - inactive
		d.Reason = Retained
	case o.BufferedFor < s.spec.Grace:
		rest = s.spec.Grace - o.BufferedFor
		d.Reason = GracePending
	}
	if rest > 0 && o.Replicas != 0 {
		d.Replicas = o.Replicas
		d.Again = o.Now.Add(rest)
	}
}

// observe is the table behind the Active condition.
func (s *State) observe(now time.Time, want int32, ready int) {
	need := s.need()
	if ready >= int(need) {
		s.initialized = true
	}
	switch {
	case want == 0 || need == 0:
		if s.activity == Activating && need > 0 {
			s.become(Inactive, TimedOut, now)
		} else if s.activity != Inactive {
			s.become(Inactive, NoTraffic, now)
		}
	case want < 0 && s.activity == Inactive:
	case ready < int(need):
		s.become(Activating, Queued, now)
	default:
		s.become(Active, Demand, now)
	}
}

// need returns how many ready instances make the revision active.
func (s *State) need() int32 {
	low := int32(0)
	if s.spec.Reachable {
		low = s.spec.Min
	}
	if s.initialized {
		return max(low, 1)
	}
	return max(low, s.spec.Initial)
}

func (s *State) become(a Activity, why Reason, now time.Time) {
	if s.activity != a {
		s.activity, s.since = a, now
	}
	s.why = why
}

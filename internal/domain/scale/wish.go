package scale

import (
	"math"
	"time"
)

// A Wish is what demand alone asks for, before bounds and the patient last step to zero.
type Wish struct {
	// Count is the wished number of instances.
	Count int32
	// Stable and Panic are the averages it was made from, of Metric.
	Stable, Panic float64
	// Panicking tells that the wish may not shrink.
	Panicking bool
	// ExcessBurst is the capacity left above the target burst; below 0 requests are buffered.
	ExcessBurst int32
	// Reason names the rule that decided Count.
	Reason Reason
}

// Wish turns the windows as they are at now, with ready instances ready, into a Wish. It moves panic
// and delay on, so it is called once for each decision.
//
// With an open value, the second that now lies in counts as if open had been recorded for it.
func (s *State) Wish(now time.Time, ready int, open *float64) Wish {
	w := Wish{Stable: s.average(&s.stable, now, open), Panic: s.average(&s.burst, now, open)}
	r := float64(max(1, ready))
	stable := math.Ceil(w.Stable / s.spec.Target)
	panicked := math.Ceil(w.Panic / s.spec.Target)
	stableCount, stableReason := s.limit(stable, r)
	panicCount, panicReason := s.limit(panicked, r)

	s.updatePanic(now, panicked/r >= s.spec.PanicThreshold)
	w.Count, w.Reason = stableCount, stableReason
	if w.Panicking = !s.panicSince.IsZero(); w.Panicking {
		w.Count, w.Reason = s.hold(stableCount, stableReason, panicCount, panicReason)
	}
	if s.spec.Reachable && s.spec.ScaleDownDelay > 0 {
		if held := s.delay.hold(now, w.Count); held != w.Count {
			w.Count, w.Reason = held, ScaleDownDelayed
		}
	}
	w.ExcessBurst = s.excessBurst(ready, w.Panic)
	return w
}

func (s *State) average(w *Window, now time.Time, open *float64) float64 {
	if open != nil {
		return w.AverageWith(now, *open)
	}
	return w.Average(now)
}

// limit keeps a raw count within the rates of change from ready instances and above the activation
// scale. An unreachable revision may shrink as fast as it likes.
func (s *State) limit(raw, ready float64) (int32, Reason) {
	most := math.Ceil(s.spec.MaxScaleUpRate * ready)
	least := 0.0
	if s.spec.Reachable {
		least = math.Floor(ready / s.spec.MaxScaleDownRate)
	}
	reason := Demand
	switch {
	case raw > most:
		reason = LimitedUp
	case raw < least:
		reason = LimitedDown
	case raw == 0:
		reason = NoTraffic
	}
	count := int32(min(max(raw, least), most, math.MaxInt32))
	if s.spec.ActivationScale > 1 && raw > 0 && count < s.spec.ActivationScale {
		count, reason = s.spec.ActivationScale, ActivationScaled
	}
	return count, reason
}

// updatePanic starts panic when demand is over the threshold, prolongs it while it stays there, and
// ends it when a stable window has passed without.
func (s *State) updatePanic(now time.Time, over bool) {
	switch {
	case over:
		s.panicSince = now
	case !s.panicSince.IsZero() && now.Sub(s.panicSince) > s.spec.StableWindow:
		s.panicSince, s.peak = time.Time{}, 0
	}
}

// hold returns the largest wish since panic began.
func (s *State) hold(stable int32, stableReason Reason, panicked int32, panicReason Reason) (int32, Reason) {
	count, reason := stable, stableReason
	if panicked > count {
		count, reason = panicked, panicReason
		if reason == Demand {
			reason = Panicking
		}
	}
	if count >= s.peak {
		s.peak = count
		return count, reason
	}
	return s.peak, PanicHeld
}

// excessBurst returns how much of the ready instances' capacity is left above the target burst and
// the present load.
func (s *State) excessBurst(ready int, load float64) int32 {
	switch burst := s.spec.TargetBurstCapacity; {
	case burst == 0:
		return 0
	case burst < 0:
		return -1
	default:
		excess := math.Floor(float64(ready)*s.spec.Total - burst - load)
		return int32(min(max(excess, math.MinInt32), math.MaxInt32))
	}
}

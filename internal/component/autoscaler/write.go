package autoscaler

import (
	"context"
	"errors"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

// ErrNotFound is what a Scaler answers when there is nothing to scale.
var ErrNotFound = errors.New("not found")

// How long failed calls wait before they are repeated, how long a call may take, and how long a
// revision with waiting requests may stay without instances before its scale is written again in
// case somebody else changed it.
const (
	firstBackOff  = 5 * time.Millisecond
	lastBackOff   = 2 * time.Second
	absentBackOff = 30 * time.Second // when there is nothing to scale
	callTimeout   = 15 * time.Second
	mendAfter     = 5 * time.Second
)

// A writer brings a revision's wanted replicas to the Scaler. One write is under way at a time and
// the next one takes the latest wish, except that a wish for more does not wait for a slow write:
// it goes out beside it. As nobody knows then which of the two was last, the latest wish is written
// once more when both are back.
type writer struct {
	replicas int32 // as decided last
	written  int32 // as written or observed last; Unknown if that is not sure

	flights  int   // writes under way: 0, 1 or 2
	flying   int32 // what the latest of them writes
	overlap  bool  // two were under way at the same time
	failures int   // in a row
	retry    *time.Timer
	retried  time.Time // when the latest write ended
	ready    int       // instances, when the fleet last told
	failed   error     // why the latest write failed, nil if it did not
}

// settled reports whether there is nothing to write.
func (w *writer) settled() bool { return w.flights == 0 && w.written == w.replicas }

func (w *writer) cancelRetry() {
	if w.retry != nil {
		w.retry.Stop()
		w.retry = nil
	}
}

// push starts a write if the decided replicas are not the written ones. r.mu is held.
func (a *Autoscaler) push(r *revision) {
	if r.gone || r.replicas == scale.Unknown || r.settled() {
		return
	}
	switch {
	case r.flights == 0:
	case r.flights == 1 && r.replicas > r.flying:
	default:
		return // landed looks again
	}
	replicas, reason := r.replicas, r.decision.Message()
	if !a.spawn(func(ctx context.Context) { a.write(ctx, r, replicas, reason) }) {
		return
	}
	r.cancelRetry()
	r.flights++
	r.flying, r.overlap = replicas, r.flights > 1
}

// write makes one call.
func (a *Autoscaler) write(ctx context.Context, r *revision, replicas int32, reason string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	err := a.scaler.Scale(ctx, r.key, replicas, reason)
	if replicas == 0 && errors.Is(err, ErrNotFound) {
		err = nil
	}
	a.metrics.wrote(time.Since(began), err)
	a.landed(r, replicas, err)
}

// landed takes note of a write that is back and starts the next if there is one.
func (a *Autoscaler) landed(r *revision, replicas int32, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flights--
	r.retried, r.failed = time.Now(), err
	if err == nil && replicas > 0 && r.finished.IsZero() && !r.woken.IsZero() {
		r.finished = r.retried
		a.metrics.woke(r.finished.Sub(r.woken))
	}
	switch {
	case r.overlap:
		r.written = scale.Unknown
		if r.flights > 0 {
			return
		}
		r.overlap = false
	case err == nil:
		r.written = replicas
	}
	if err != nil {
		a.backOff(r, err)
		return
	}
	r.failures = 0
	a.push(r)
}

// backOff plans the next attempt after a failure. r.mu is held.
func (a *Autoscaler) backOff(r *revision, err error) {
	r.failures++
	if r.gone {
		return
	}
	if r.failures == 1 && !errors.Is(err, ErrNotFound) {
		a.log.Warn("scaling a revision; will try again", "revision", r.key, "replicas", r.flying, "error", err)
	}
	longest := lastBackOff
	if errors.Is(err, ErrNotFound) {
		longest = absentBackOff
	}
	wait := min(longest, firstBackOff<<min(r.failures-1, 20))
	r.cancelRetry()
	r.retry = time.AfterFunc(wait, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.retry = nil
		a.push(r)
	})
}

// mend writes the scale again when requests have been waiting for long without any instance, in case
// somebody else scaled the revision down. r.mu is held.
func (a *Autoscaler) mend(r *revision, now time.Time) {
	if r.replicas <= 0 || !r.settled() || time.Since(r.retried) < mendAfter || now.Sub(r.since) < mendAfter {
		return
	}
	if a.fleet.Ready(r.key) > 0 || a.demand.Meter(r.key).InFlight() == 0 {
		return
	}
	r.written = scale.Unknown
	a.push(r)
}

// suspect writes the scale again when instances went or came although nothing was written lately: they
// may have crashed, but somebody else may have scaled the revision, too. r.mu is held.
func (a *Autoscaler) suspect(r *revision, ready int) {
	before := r.ready
	r.ready = ready
	lost := ready < before && ready < int(r.replicas)
	gained := ready > before && ready > int(r.replicas)
	if (lost || gained) && r.replicas != scale.Unknown && r.settled() && time.Since(r.retried) >= mendAfter {
		r.written = scale.Unknown
		a.push(r)
	}
}

package autoscaler

import (
	"context"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

// decideEvery is how many seconds lie between two decisions that nothing brought forward.
const decideEvery = 2

// Run measures and decides until ctx ends, then waits for the calls that are under way, which end
// with ctx, too. It is called once.
func (a *Autoscaler) Run(ctx context.Context) error {
	a.mu.Lock()
	a.running = ctx
	known := make([]*revision, 0, len(a.revisions))
	for _, r := range a.revisions {
		known = append(known, r)
	}
	a.mu.Unlock()
	for _, r := range known {
		a.begin(r)
	}
	a.loop(ctx)
	a.mu.Lock()
	a.running = nil // no call starts any more
	a.mu.Unlock()
	a.calls.Wait()
	return nil
}

// loop wakes at the beginning of every second while there are live revisions.
func (a *Autoscaler) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var next <-chan time.Time
		if a.anyLive() {
			timer.Reset(untilNextSecond(a.now()))
			next = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-a.kick:
		case <-next:
			a.tick(a.now())
		}
	}
}

func untilNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}

// tick measures every live revision and decides about those whose turn it is.
func (a *Autoscaler) tick(now time.Time) {
	a.liveMu.Lock()
	live := make([]*revision, 0, len(a.live))
	for r := range a.live {
		live = append(live, r)
	}
	a.liveMu.Unlock()
	for _, r := range live {
		r.mu.Lock()
		changed := a.tickOne(r, now)
		r.mu.Unlock()
		a.notify(r, changed)
	}
}

// tickOne measures one revision, decides about it if it is time, and lets it rest when time alone
// can change nothing any more. r.mu is held.
func (a *Autoscaler) tickOne(r *revision, now time.Time) (changed bool) {
	if r.gone || !r.live {
		return false
	}
	a.measure(r, now)
	again := r.decision.Again
	if now.Unix()%decideEvery == 0 || (!again.IsZero() && !now.Before(again)) {
		changed = a.decide(r, now, false)
	}
	a.mend(r, now)
	if r.settled() && r.state.Quiet(now, r.decision) && a.demand.Meter(r.key).Rest() {
		r.state.Forget()
		a.rest(r)
	}
	return changed
}

// measure records what happened in the seconds that are over, each of them once. While there are
// instances, nothing is recorded as zero; while there are none, silence stays silence.
func (a *Autoscaler) measure(r *revision, now time.Time) {
	seconds := now.Unix() - r.pending
	if seconds <= 0 {
		return
	}
	sample := a.demand.Meter(r.key).Take(now)
	value := sample.Concurrency
	if r.spec.Metric == scale.RPS {
		value = float64(sample.Requests) / float64(seconds)
	}
	if value > 0 || sample.InFlight > 0 || a.fleet.Ready(r.key) > 0 {
		// A late tick covers several seconds; those that no window reaches back to are left out.
		longest := int64(r.spec.StableWindow/time.Second) + 1
		for second := max(r.pending, now.Unix()-longest); second < now.Unix(); second++ {
			r.state.Record(time.Unix(second, 0), value)
		}
	}
	r.pending = now.Unix()
}

// enliven has the revision measured from now on. r.mu is held.
func (a *Autoscaler) enliven(r *revision, now time.Time) {
	if r.live || r.gone || r.state == nil {
		return
	}
	r.live, r.pending = true, now.Unix()
	if r.rested && a.fleet.Ready(r.key) > 0 {
		r.state.WasIdle(now)
	}
	a.liveMu.Lock()
	a.live[r] = struct{}{}
	a.liveMu.Unlock()
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// rest ends the measuring of a revision. r.mu is held.
func (a *Autoscaler) rest(r *revision) {
	r.live, r.rested = false, true
	a.liveMu.Lock()
	delete(a.live, r)
	a.liveMu.Unlock()
}

func (a *Autoscaler) anyLive() bool {
	a.liveMu.Lock()
	defer a.liveMu.Unlock()
	return len(a.live) > 0
}

package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind says what a probe's verdict is used for.
type Kind string

// The kinds of probes a container can have.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Until a probe has passed once it is repeated after firstWait, growing to eagerWait; after a while
// of that the container is a slow starter and slowWait will do. Commands cost a process each, so
// they are run less eagerly.
const (
	firstWait = time.Millisecond
	eagerWait = 50 * time.Millisecond
	slowWait  = 250 * time.Millisecond
	slowAfter = time.Minute
	execFirst = 20 * time.Millisecond
	execWait  = 250 * time.Millisecond
)

// A probe without period is Knative's: its attempts are short, and one that fails is repeated for a
// while before it counts. A container that became unready is looked at more often than one that is up.
const (
	shortTimeout = 100 * time.Millisecond
	shortWait    = 50 * time.Millisecond
	shortSpan    = time.Second
	unreadyWait  = time.Second
)

// Report is told verdicts. healthy changes only when a threshold is reached; err is the failed
// attempt that should be shown as an event, nil for none.
type Report func(healthy bool, changed bool, err error)

// Spec is one probe with Kubernetes' defaults filled in.
type Spec struct {
	Kind    Kind
	Handler corev1.ProbeHandler
	// Delay is counted from Started.
	Started                time.Time
	Delay, Period, Timeout time.Duration
	Success, Failure       int
	// Aggressive marks a probe without period; see Hurry.
	Aggressive bool
}

// NewSpec reads the API's probe.
func NewSpec(kind Kind, p *corev1.Probe, started time.Time) Spec {
	second := func(n, fallback int32) time.Duration {
		if n <= 0 {
			n = fallback
		}
		return time.Duration(n) * time.Second
	}
	s := Spec{
		Kind: kind, Handler: p.ProbeHandler, Started: started,
		Delay:   time.Duration(p.InitialDelaySeconds) * time.Second,
		Period:  second(p.PeriodSeconds, 10),
		Timeout: second(p.TimeoutSeconds, 1),
		Success: max(int(p.SuccessThreshold), 1),
		Failure: int(p.FailureThreshold),
	}
	if s.Failure <= 0 {
		s.Failure = 3
	}
	return s
}

// Hurry makes s Knative's probe without period. Its Period, Kubernetes' default, is how often a
// container that is up is looked at.
func (s *Spec) Hurry() {
	s.Aggressive, s.Timeout = true, shortTimeout
}

// Watch repeats the check until ctx ends. initial is the verdict before the first attempt: liveness
// starts healthy, the others do not, an adopted container keeps what it had.
func Watch(ctx context.Context, s Spec, initial bool, check func(context.Context) error, report Report) {
	timer := time.NewTimer(time.Until(s.Started.Add(s.Delay)))
	defer timer.Stop()
	w := watcher{Spec: s, healthy: initial, eager: !initial && s.Kind != Liveness, begun: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		attempt, cancel := context.WithTimeout(ctx, s.Timeout)
		err := check(attempt)
		cancel()
		if ctx.Err() != nil {
			return
		}
		wait, changed, show := w.judge(err, time.Now())
		if changed || show != nil {
			report(w.healthy, changed, show)
		}
		if s.Kind == Startup && w.healthy {
			return
		}
		timer.Reset(wait)
	}
}

// watcher counts towards the thresholds.
type watcher struct {
	Spec
	healthy  bool
	eager    bool      // no success yet
	reported bool      // a failure verdict was given since the last success
	failing  time.Time // first failure of those that count as one; zero for none
	begun    time.Time
	counted  time.Time // when the last failure was counted
	wait     time.Duration
	good     int
	bad      int
}

// judge takes one outcome and says how long to wait, whether the verdict changed, and which failure
// to show. While eager, failures count once a period only: trying more often must not fail sooner.
func (w *watcher) judge(err error, now time.Time) (wait time.Duration, changed bool, show error) {
	if err == nil {
		return w.succeeded()
	}
	w.good = 0
	if w.eager && now.Sub(w.lastCount()) < w.Period {
		return w.again(now), false, nil
	}
	if w.Aggressive && w.healthy && w.passing(now) {
		return shortWait, false, nil
	}
	w.counted = now
	w.bad++
	if w.bad >= w.Failure && (w.healthy || !w.reported) {
		w.healthy, w.reported, changed = false, true, true
	}
	if w.eager {
		return w.again(now), changed, err
	}
	return w.between(), changed, err
}

// succeeded is judge for a success.
func (w *watcher) succeeded() (wait time.Duration, changed bool, show error) {
	w.bad, w.reported, w.failing = 0, false, time.Time{}
	w.good++
	if !w.healthy && w.good >= w.Success {
		w.healthy, changed = true, true
	}
	if w.healthy {
		w.eager = false
		return w.Period, changed, nil
	}
	if w.Aggressive {
		return shortWait, false, nil
	}
	return w.Period, false, nil // further successes count a period apart
}

// passing says whether a failure may still pass by itself, so that it does not count yet.
func (w *watcher) passing(now time.Time) bool {
	if w.failing.IsZero() {
		w.failing = now
	}
	if now.Sub(w.failing) < shortSpan {
		return true
	}
	w.failing = time.Time{}
	return false
}

// between is the wait after a failure that counted.
func (w *watcher) between() time.Duration {
	if w.Aggressive && !w.healthy {
		return min(w.Period, unreadyWait)
	}
	return w.Period
}

func (w *watcher) lastCount() time.Time {
	if w.counted.IsZero() {
		return w.begun
	}
	return w.counted
}

// again is the growing wait before the first success.
func (w *watcher) again(now time.Time) time.Duration {
	if !w.eager {
		return w.Period
	}
	first, top := firstWait, eagerWait
	if w.Handler.Exec != nil {
		first, top = execFirst, execWait
	}
	if now.Sub(w.begun) > slowAfter {
		top = max(top, slowWait)
	}
	w.wait = min(max(w.wait*3/2, w.wait+first), top)
	return min(w.wait, w.Period)
}

package pod

import "time"

// task is something the pod needs once, which may fail and be tried again.
type task[T any] struct {
	busy    bool
	ok      bool
	value   T
	err     error
	backoff time.Duration
	until   time.Time // no retry before
}

// due says whether the task should be started now; when it has to wait, it says until when.
func (t *task[T]) due(now time.Time) (start bool, wait time.Time) {
	if t.busy || t.ok {
		return false, time.Time{}
	}
	if now.Before(t.until) {
		return false, t.until
	}
	return true, time.Time{}
}

func (t *task[T]) succeed(value T) {
	*t = task[T]{ok: true, value: value}
}

// fail keeps the error and doubles the wait from first up to top.
func (t *task[T]) fail(err error, now time.Time, first, top time.Duration) {
	t.busy, t.ok, t.err = false, false, err
	t.backoff = min(max(t.backoff*2, first), top)
	t.until = now.Add(t.backoff)
}

// The kubelet's back-off for crashing containers and failing pulls: the first retry is immediate for
// a crash, then 10 s doubling to 5 min; forgotten after 10 min of peace.
const (
	backoffFirst = 10 * time.Second
	backoffTop   = 5 * time.Minute
	backoffReset = 2 * backoffTop
)

// backoff paces a container's restarts.
type backoff struct {
	delay time.Duration // 0 before the first failure
	since time.Time     // when delay was set
}

// next is told that a container ended at the time given and says when it may start again.
func (b *backoff) next(ended time.Time) time.Time {
	if b.delay > 0 && ended.Sub(b.since) > backoffReset {
		b.delay = 0
	}
	if b.delay == 0 {
		b.delay, b.since = backoffFirst, ended
		return ended
	}
	until := ended.Add(b.delay)
	b.delay, b.since = min(2*b.delay, backoffTop), until
	return until
}

// resume takes up the pace of a container that was in back-off, after that many restarts.
func (b *backoff) resume(restarts int, ended time.Time) time.Time {
	b.delay, b.since = backoffTop, ended
	if restarts < 6 {
		b.delay = min(backoffFirst<<max(restarts-1, 0), backoffTop)
	}
	return b.next(ended)
}

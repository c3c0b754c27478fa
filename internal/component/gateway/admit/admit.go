// Package admit decides which waiting request of a revision goes next, and to which instance.
//
// A request without a free slot waits in arrival order until one frees, the queue is full
// (ErrQueueFull), its patience ends (ErrTimeout) or its context does. Admission starts nothing and
// knows nothing of HTTP: it reports that a request waits, and others answer by making instances
// ready in the fleet.
//
//	          Admit                    a slot frees, an instance becomes ready
//	request ───────► free slot? ─ no ─► queue ───────────────────────────────► slot ─► Release
//	                     ╰──── yes ────────────────────────────────────────────╯
package admit

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/platform/fleet"
)

// Reasons why a request got no slot; callers use errors.Is.
var (
	// ErrQueueFull means that as many requests wait as may.
	ErrQueueFull = errors.New("queue full")
	// ErrGone means that the revision no longer takes requests: look for another.
	ErrGone = errors.New("revision gone")
	// ErrTimeout means that no slot was free within the request's patience.
	ErrTimeout = errors.New("no instance in time")
)

// reminder is how often the oldest waiting request says again that it waits. It covers a wake that
// was told before anyone could act on it.
const reminder = time.Second

// Config is what an Admitter works with.
type Config struct {
	// Instances reads the revision's instances now.
	Instances func() []fleet.Instance
	// Link makes what the caller keeps per instance, such as its connections. It is closed once the
	// instance is gone and its last request left.
	Link func(fleet.Instance) io.Closer
	// Wake is told that a request waits. It must not block.
	Wake func()
	// Depth bounds the queue.
	Depth int
}

// Admitter admits the requests of one revision. Its methods are safe for concurrent use.
//
// Whenever mu is free, a waiting request implies that no instance has a free slot.
type Admitter struct {
	config Config
	queued atomic.Int64 // length of the queue, also readable without mu

	mu      sync.Mutex // guards all below; never held while a request is forwarded
	limit   int        // requests per instance, 0 = any
	gone    bool       // nobody may wait
	order   uint64     // of the last arrival
	turn    uint64     // of the last pick
	first   *Entry     // the queue, oldest first
	last    *Entry
	slots   map[types.UID]*Slot // instances in the fleet
	leaving map[*Slot]struct{}  // gone from the fleet with requests in flight
	open    heap                // slots that may be picked, least loaded first
}

// Entry is a request's place in line. The zero value is a request that has not arrived; it keeps
// its place when it is admitted again after an instance failed it.
type Entry struct {
	// Waited is the time spent in the queue, over all admissions.
	Waited time.Duration
	// Cold says that there was no instance to wait for when it first queued.
	Cold bool

	order      uint64
	next, prev *Entry
	waiting    bool
	granted    chan *Slot
}

// New returns an Admitter that knows the instances there are now.
func New(c Config) *Admitter {
	a := &Admitter{config: c, slots: map[types.UID]*Slot{}, leaving: map[*Slot]struct{}{}}
	a.Refresh()
	return a
}

// Try returns a slot if one is free and nobody waits, otherwise nil. It counts as the arrival.
func (a *Admitter) Try(e *Entry) *Slot {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.order == 0 {
		a.order++
		e.order = a.order
	}
	if a.first != nil {
		return nil
	}
	return a.take()
}

// Admit returns a slot that the caller must give back, waiting for at most patience.
func (a *Admitter) Admit(ctx context.Context, e *Entry, patience time.Duration) (*Slot, error) {
	if s := a.Try(e); s != nil {
		return s, nil
	}
	a.mu.Lock()
	if a.first == nil { // a slot may have freed since
		if s := a.take(); s != nil {
			a.mu.Unlock()
			return s, nil
		}
	}
	if a.gone {
		a.mu.Unlock()
		return nil, ErrGone
	}
	if e.granted == nil && int(a.queued.Load()) >= a.config.Depth {
		a.mu.Unlock()
		return nil, ErrQueueFull
	}
	if e.granted == nil {
		e.granted = make(chan *Slot, 1)
		e.Cold = len(a.slots) == 0 || !a.anyReady()
	}
	a.enqueue(e)
	a.mu.Unlock()
	a.config.Wake()
	return a.wait(ctx, e, patience)
}

// wait blocks until the queued entry is granted a slot or gives up.
func (a *Admitter) wait(ctx context.Context, e *Entry, patience time.Duration) (*Slot, error) {
	began := time.Now()
	defer func() { e.Waited += time.Since(began) }()
	timer := time.NewTimer(min(patience, reminder))
	defer timer.Stop()
	for {
		select {
		case s := <-e.granted:
			if s == nil {
				return nil, ErrGone
			}
			return s, nil
		case <-ctx.Done():
			return nil, a.leave(e, ctx.Err())
		case <-timer.C:
			left := patience - time.Since(began)
			if left <= 0 {
				return nil, a.leave(e, ErrTimeout)
			}
			if a.oldest(e) {
				a.config.Wake()
			}
			timer.Reset(min(left, reminder))
		}
	}
}

// leave takes the entry out of the queue, or gives back the slot it was granted meanwhile.
func (a *Admitter) leave(e *Entry, cause error) error {
	a.mu.Lock()
	if e.waiting {
		a.dequeue(e)
		a.mu.Unlock()
		return cause
	}
	a.mu.Unlock()
	if s := <-e.granted; s != nil {
		a.Release(s)
	}
	return cause
}

// SetServing says whether the revision takes requests. When it ceases to, those that wait leave with
// ErrGone; those in flight end as they would.
func (a *Admitter) SetServing(serving bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = !serving
	for a.gone && a.first != nil {
		e := a.first
		a.dequeue(e)
		e.granted <- nil // has room: one grant per wait
	}
}

// oldest reports whether the entry is next in line.
func (a *Admitter) oldest(e *Entry) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first == e
}

// Release gives a slot back after a request; the oldest waiting request gets it.
func (a *Admitter) Release(s *Slot) {
	a.mu.Lock()
	s.requests--
	closing := a.freed(s)
	a.mu.Unlock()
	if closing != nil {
		closing.Close() // connections of an instance that is gone
	}
}

// Upgrade says that the slot's request became a connection of its own, which Drain does not wait
// for. It still counts against the limit and is given back with ReleaseUpgraded.
func (a *Admitter) Upgrade(s *Slot) {
	a.mu.Lock()
	s.requests--
	s.upgraded++
	s.quietIfDone()
	a.mu.Unlock()
}

// ReleaseUpgraded gives back the slot of an upgraded connection.
func (a *Admitter) ReleaseUpgraded(s *Slot) {
	a.mu.Lock()
	s.upgraded--
	closing := a.freed(s)
	a.mu.Unlock()
	if closing != nil {
		closing.Close() // connections of an instance that is gone
	}
}

// freed settles the books after a slot lost a request and returns what is to be closed without mu.
func (a *Admitter) freed(s *Slot) io.Closer {
	s.quietIfDone()
	if s.index >= 0 {
		a.open.fix(s)
		a.dispatch()
	}
	if s.gone && s.load() == 0 {
		delete(a.leaving, s)
		return s.Link
	}
	return nil
}

// SetLimit sets how many requests may be in one instance; 0 means any number.
func (a *Admitter) SetLimit(limit int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit != a.limit {
		a.limit = limit
		a.dispatch()
	}
}

// Queued counts the waiting requests.
func (a *Admitter) Queued() int { return int(a.queued.Load()) }

// Idle reports whether nothing waits, is in flight or known: the Admitter may be forgotten.
func (a *Admitter) Idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first == nil && len(a.slots) == 0 && len(a.leaving) == 0
}

// take picks a slot for one request, nil if there is none free. The caller holds mu.
func (a *Admitter) take() *Slot {
	if len(a.open) == 0 {
		return nil
	}
	s := a.open[0]
	if a.limit > 0 && s.load() >= a.limit {
		return nil
	}
	a.turn++
	s.turn = a.turn
	s.requests++
	a.open.fix(s)
	return s
}

// dispatch hands free slots to waiting requests. The caller holds mu.
func (a *Admitter) dispatch() {
	for a.first != nil {
		s := a.take()
		if s == nil {
			return
		}
		e := a.first
		a.dequeue(e)
		e.granted <- s // has room: one grant per wait
	}
}

// enqueue puts the entry where its arrival belongs: nearly always last. The caller holds mu.
func (a *Admitter) enqueue(e *Entry) {
	e.waiting = true
	after := a.last
	if after != nil && after.order > e.order { // a request that comes back: older than most
		after = nil
		for n := a.first; n != nil && n.order < e.order; n = n.next {
			after = n
		}
	}
	e.prev = after
	if after == nil {
		e.next = a.first
		a.first = e
	} else {
		e.next = after.next
		after.next = e
	}
	if e.next == nil {
		a.last = e
	} else {
		e.next.prev = e
	}
	a.queued.Add(1)
}

// dequeue takes the entry out. The caller holds mu.
func (a *Admitter) dequeue(e *Entry) {
	if e.prev == nil {
		a.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		a.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.next, e.prev, e.waiting = nil, nil, false
	a.queued.Add(-1)
}

package delivery

import (
	"context"
	"sync"
	"time"
)

// lane delivers to one source, one event after the other. While events wait it has a goroutine:
//
//	idle ──event──► sending ──ok──► next, or idle
//	                 ▲   └─failed──► pausing ──┐ (given up after some attempts)
//	                 └─────────────────────────┘
type lane struct {
	lanes  *Lanes
	key    Key
	source Source
	ctx    context.Context // ends with the lane
	cancel context.CancelFunc

	mu       sync.Mutex // guards all below
	queue    []*Event   // the first is being sent if running
	running  bool
	attempts int  // at the first
	failures int  // in a row
	broken   bool // an event was given up, and none was delivered since
}

func newLane(l *Lanes, key Key, s Source) *lane {
	ctx, cancel := context.WithCancel(l.ctx)
	return &lane{lanes: l, key: key, source: s, ctx: ctx, cancel: cancel}
}

// end stops a lane and returns what waited.
func (l *lane) end() []*Event {
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.queue
	l.queue = nil
	return rest
}

func (l *lane) failing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// add puts an event at the end of the queue.
func (l *lane) add(e *Event) {
	l.mu.Lock()
	if len(l.queue) >= maxQueue {
		l.queue = append(l.queue[:0], l.queue[1:]...)
		l.attempts = 0
		l.lanes.metrics.dropped(l.key, l.source.Sink.Kind(), e.Namespace)
	} else {
		l.lanes.metrics.queued(l.key, 1)
	}
	l.queue = append(l.queue, e)
	l.mu.Unlock()
	l.begin()
}

// begin sees to it that what waits is sent.
func (l *lane) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running && len(l.queue) > 0 && l.ctx.Err() == nil {
		l.running = true
		go l.run()
	}
}

func (l *lane) run() {
	for {
		e := l.first()
		if e == nil {
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, patience)
		err := l.source.Sink.Send(ctx, e)
		cancel()
		if l.ctx.Err() != nil {
			return // whoever ended the lane has what waited
		}
		if pause := l.done(e, err); pause > 0 {
			select {
			case <-time.After(pause):
			case <-l.ctx.Done():
				return
			}
		}
	}
}

// first returns the event to send now; nil says that the goroutine ends.
func (l *lane) first() *Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.running, l.queue = false, nil
		return nil
	}
	return l.queue[0]
}

// done notes how an attempt at e ended and returns how long to wait before the next.
func (l *lane) done(e *Event, err error) time.Duration {
	kind := l.source.Sink.Kind()
	l.lanes.metrics.tried(l.key, kind, e.Namespace, err)
	l.mu.Lock()
	same := len(l.queue) > 0 && l.queue[0] == e // else it had to give way meanwhile
	before := l.broken
	pause := time.Duration(0)
	if err == nil {
		l.failures, l.broken = 0, false
	} else {
		pause = min(leastPause<<min(l.failures, 10), mostPause)
		l.failures++
		l.attempts++
	}
	given := err != nil && same && l.attempts >= maxAttempts
	l.broken = l.broken || given
	if same && (err == nil || given) {
		l.queue, l.attempts = l.queue[1:], 0
		l.lanes.metrics.queued(l.key, -1)
	}
	changed := l.broken != before
	l.mu.Unlock()
	if given {
		l.lanes.log.Warn("giving up a CloudEvent", "source", l.key.String(), "sink", kind, "type", e.Type,
			"object", e.Namespace+"/"+e.Name, "error", err)
	}
	if changed {
		l.lanes.changed(l.key)
	}
	return pause
}

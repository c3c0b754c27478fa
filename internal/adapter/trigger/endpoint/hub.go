package endpoint

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// gap is the least time between two wakes of one watcher.
	gap = 5 * time.Millisecond
	// linger is how long a session outlives its last watcher: objects stop and watch again each time
	// their mode changes.
	linger = 10 * time.Second
)

// A Hub keeps who waits for which key, and has one session with a server while anybody does.
//
//	nobody watches ──Watch──▶ session ──fails──▶ pause ──▶ session …
//	       ▲                     │
//	       └──10 s without keys──┘
//
// The session is a function that connects, follows the keys and returns when its context ends or it
// cannot go on. It wakes a key once it is followed, since what came before went unseen: that makes
// up for whatever was lost while there was no session.
type Hub[K comparable] struct {
	pool    *Pool
	what    string
	log     *slog.Logger
	session func(ctx context.Context, h *Hub[K]) error

	running sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	keys    map[K]map[int]*sleeper
	next    int
	changed chan struct{} // closed when keys come or go
	cancel  context.CancelFunc
	closed  bool
}

// A sleeper is one who watches.
type sleeper struct {
	wake func()
	last time.Time   // of the wake before
	late *time.Timer // of a wake that comes when gap is over
}

// NewHub returns a hub whose sessions are that function, none of which outlives the pool; what names
// the server in the log.
func NewHub[K comparable](pool *Pool, what string, log *slog.Logger, session func(ctx context.Context, h *Hub[K]) error) *Hub[K] {
	return &Hub[K]{pool: pool, what: what, log: log, session: session, keys: map[K]map[int]*sleeper{}, changed: make(chan struct{})}
}

// Watch has wake called when the session wakes the key, until stop is called.
func (h *Hub[K]) Watch(key K, wake func()) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.next
	h.next++
	if h.keys[key] == nil {
		h.keys[key] = map[int]*sleeper{}
		h.keysChanged()
	}
	h.keys[key][id] = &sleeper{wake: wake}
	if h.cancel == nil && !h.closed {
		ctx, cancel := h.pool.Lifetime()
		h.cancel = cancel
		h.running.Go(func() { h.run(ctx) })
	}
	return sync.OnceFunc(func() { h.unwatch(key, id) })
}

func (h *Hub[K]) unwatch(key K, id int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.keys[key][id]; s != nil && s.late != nil {
		s.late.Stop()
	}
	delete(h.keys[key], id)
	if len(h.keys[key]) > 0 {
		return
	}
	delete(h.keys, key)
	h.keysChanged()
	if len(h.keys) == 0 && !h.closed {
		time.AfterFunc(linger, h.rest)
	}
}

// rest ends the session if nobody watches.
func (h *Hub[K]) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.keys) == 0 && h.cancel != nil {
		h.cancel()
		h.cancel = nil
	}
}

func (h *Hub[K]) keysChanged() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Keys returns the keys that are watched and a channel that closes when they change.
func (h *Hub[K]) Keys() (keys []K, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys = make([]K, 0, len(h.keys))
	for key := range h.keys {
		keys = append(keys, key)
	}
	return keys, h.changed
}

// Wake wakes those who watch a key: at once, or a few milliseconds later if they were just woken.
func (h *Hub[K]) Wake(key K) {
	h.mu.Lock()
	var wakes []func()
	now := time.Now()
	for id, s := range h.keys[key] {
		switch wait := gap - now.Sub(s.last); {
		case s.late != nil:
		case wait <= 0:
			s.last = now
			wakes = append(wakes, s.wake)
		default:
			s.late = time.AfterFunc(wait, func() { h.late(key, id) })
		}
	}
	h.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

func (h *Hub[K]) late(key K, id int) {
	h.mu.Lock()
	s := h.keys[key][id]
	if s != nil {
		s.late, s.last = nil, time.Now()
	}
	h.mu.Unlock()
	if s != nil {
		s.wake()
	}
}

// Close ends the session and returns when it has ended.
func (h *Hub[K]) Close() {
	h.mu.Lock()
	h.closed = true
	if h.cancel != nil {
		h.cancel()
		h.cancel = nil
	}
	h.mu.Unlock()
	h.running.Wait()
}

func (h *Hub[K]) run(ctx context.Context) {
	pause, failing := time.Duration(0), false
	for ctx.Err() == nil {
		begin := time.Now()
		err := h.session(ctx, h)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > longest {
			pause, failing = 0, false
		}
		if err != nil && !failing {
			failing = true
			h.log.Warn("watching for work: it is polled until that works again", "server", h.what, "error", err)
		}
		pause = h.pool.Pause(pause, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Each has a function follow each key that is watched, until the key is not watched any more or ctx
// ends. It is a session for servers where keys have nothing in common.
func (h *Hub[K]) Each(ctx context.Context, follow func(ctx context.Context, key K)) error {
	var followers sync.WaitGroup
	stops := map[K]func(){}
	defer func() {
		for _, stop := range stops {
			stop()
		}
		followers.Wait()
	}()
	for {
		keys, changed := h.Keys()
		watched := make(map[K]bool, len(keys))
		for _, key := range keys {
			watched[key] = true
			if stops[key] == nil {
				mine, stop := context.WithCancel(ctx)
				stops[key] = stop
				followers.Go(func() { follow(mine, key) })
			}
		}
		for key, stop := range stops {
			if !watched[key] {
				stop()
				delete(stops, key)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

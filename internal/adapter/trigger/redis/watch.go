package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// often and seldom are how often is asked for what a server does not tell of, and the least time
	// between two questions about a key that it does.
	often  = 100 * time.Millisecond
	seldom = 500 * time.Millisecond
	// soon and later are how long a server is polled that could not be heard: because it was not
	// there, or because it refuses.
	soon  = 2 * time.Second
	later = time.Minute
)

// An interest is what is watched.
type interest struct {
	question
	mode trigger.Mode
}

// pause is the least time between two wakes but for the first.
func (i interest) pause() time.Duration {
	if i.mode == trigger.Active {
		return seldom
	}
	return often
}

// A watch is a session of a server's hub.
//
//	heard ──cut──▶ connect ──▶ heard
//	  ▲               │ fails
//	  └── 2 s, 1 min ── polled
type watch struct {
	server *server
	hub    *endpoint.Hub[interest]

	mu    sync.Mutex       // guards links
	links map[string]*link // by address
}

// A link is the connection to one server, made when it is needed.
type link struct {
	mu      sync.Mutex // guards the fields below, and is held while connecting
	tracker *tracker
	err     error     // of the last try
	next    time.Time // when to try again
}

func (s *server) session(ctx context.Context, h *endpoint.Hub[interest]) error {
	w := &watch{server: s, hub: h, links: map[string]*link{}}
	defer w.close()
	return h.Each(ctx, w.follow)
}

func (w *watch) close() {
	for _, l := range w.links {
		if l.tracker != nil {
			l.tracker.close()
		}
	}
}

// follow wakes a key after its changes.
func (w *watch) follow(ctx context.Context, key interest) {
	if key.measure == pending {
		w.poll(ctx, key, nil)
		return
	}
	for ctx.Err() == nil {
		begin := time.Now()
		err := w.hear(ctx, key)
		if ctx.Err() != nil {
			return
		}
		refused, isRefusal := errors.AsType[refusal](err)
		if !isRefusal && time.Since(begin) > soon {
			continue // the connection was cut: the next tells what came meanwhile
		}
		w.server.moved(ctx)
		w.server.env.Log.Debug("watching a key of Redis: it is polled instead", "key", key.key, "error", err)
		wait := w.server.env.Shared.Rest(soon)
		if isRefusal && !refused.passes() {
			wait = later
		}
		w.poll(ctx, key, time.After(wait))
	}
}

// hear wakes a key when its server says that it was changed.
func (w *watch) hear(ctx context.Context, key interest) error {
	node, err := w.server.node(ctx, key.key)
	if err != nil {
		return err
	}
	t, err := w.tracker(ctx, node)
	if err != nil {
		return err
	}
	return t.follow(ctx, key, func() { w.hub.Wake(key) })
}

// poll wakes a key when the answer to its question changes.
func (w *watch) poll(ctx context.Context, key interest, enough <-chan time.Time) {
	defer w.server.poller[key.mode].Watch(key.question, func() { w.hub.Wake(key) })()
	select {
	case <-ctx.Done():
	case <-enough:
	}
}

// tracker returns the connection to a server. One that could not be made is tried again a second
// later at the earliest, however many keys want it.
func (w *watch) tracker(ctx context.Context, node *redis.Client) (*tracker, error) {
	at := node.Options().Addr
	w.mu.Lock()
	l := w.links[at]
	if l == nil {
		l = &link{}
		w.links[at] = l
	}
	w.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tracker != nil && l.tracker.lives() {
		return l.tracker, nil
	}
	if time.Now().Before(l.next) {
		return nil, l.err
	}
	t, err := connect(ctx, node)
	if err != nil {
		err = fmt.Errorf("connecting to Redis at %s: %w", at, err)
		l.err, l.next = err, time.Now().Add(w.server.env.Shared.Rest(soon/2))
		return nil, err
	}
	l.tracker = t
	return t, nil
}

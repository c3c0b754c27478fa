package endpoint

import (
	"context"
	"sync"
	"time"
)

// A Poller asks a server about all keys that are watched, in one go, and wakes those whose answer
// changed. It is for questions whose cost to the server is small and constant, where the server
// cannot tell by itself. It runs while keys are watched and costs nothing otherwise.
type Poller[K comparable, V comparable] struct {
	pool  *Pool
	every time.Duration
	ask   func(ctx context.Context, keys []K) (map[K]V, error)

	mu      sync.Mutex // guards the fields below
	watched map[K]*watched[V]
	next    int
	stop    context.CancelFunc // of the loop, while it runs
	done    chan struct{}      // closed when the loop that stop ends has ended
}

type watched[V comparable] struct {
	watchers map[int]*watcher
	last     V
	missed   bool // a change may have gone unseen: the next answer wakes everybody
}

type watcher struct {
	wake func()
	told bool // it has heard of an answer
}

// NewPoller returns a poller that asks at that interval, as long as the pool lasts. ask answers for
// the keys it can. Whoever begins to watch is woken by the first answer, and everybody by the first
// after a question that went unanswered, since a change may have been missed.
func NewPoller[K comparable, V comparable](pool *Pool, every time.Duration, ask func(ctx context.Context, keys []K) (map[K]V, error)) *Poller[K, V] {
	return &Poller[K, V]{pool: pool, every: every, ask: ask, watched: map[K]*watched[V]{}}
}

// Watch has wake called when the answer for a key differs from the one before, until stop is called.
func (p *Poller[K, V]) Watch(key K, wake func()) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watched[key]
	if w == nil {
		w = &watched[V]{watchers: map[int]*watcher{}}
		p.watched[key] = w
	}
	id := p.next
	p.next++
	w.watchers[id] = &watcher{wake: wake}
	if p.stop == nil {
		ctx, cancel := p.pool.Lifetime()
		p.stop, p.done = cancel, make(chan struct{})
		go p.run(ctx, p.done)
	}
	return sync.OnceFunc(func() { p.unwatch(key, id) })
}

func (p *Poller[K, V]) unwatch(key K, id int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watched[key]
	if w == nil {
		return
	}
	delete(w.watchers, id)
	if len(w.watchers) > 0 {
		return
	}
	delete(p.watched, key)
	if len(p.watched) == 0 && p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

func (p *Poller[K, V]) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	wait := p.every
	for {
		if err := p.poll(ctx); err == nil {
			wait = p.every
		} else {
			wait = max(p.pool.Pause(wait, err), p.every)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// poll asks once and wakes whom it concerns. It tells why the question was not answered.
func (p *Poller[K, V]) poll(ctx context.Context) error {
	p.mu.Lock()
	keys := make([]K, 0, len(p.watched))
	for key := range p.watched {
		keys = append(keys, key)
	}
	p.mu.Unlock()
	limit, cancel := context.WithTimeout(ctx, max(5*time.Second, p.every))
	answers, err := p.ask(limit, keys)
	cancel()
	if err != nil {
		answers = nil
	}
	for _, wake := range p.changed(keys, answers) {
		wake()
	}
	return err
}

// changed notes the answers to a question and returns whom to wake.
func (p *Poller[K, V]) changed(asked []K, answers map[K]V) (wakes []func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range asked {
		w := p.watched[key]
		if w == nil {
			continue
		}
		answer, answered := answers[key]
		if !answered {
			w.missed = true
			continue
		}
		all := w.missed || w.last != answer
		for _, one := range w.watchers {
			if all || !one.told {
				wakes = append(wakes, one.wake)
			}
			one.told = true
		}
		w.last, w.missed = answer, false
	}
	return wakes
}

// Wait returns when the loop that ran last has ended; for tests.
func (p *Poller[K, V]) Wait() {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done != nil {
		<-done
	}
}

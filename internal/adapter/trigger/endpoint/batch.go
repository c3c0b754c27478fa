package endpoint

import (
	"context"
	"fmt"
	"sync"
)

// A Batch joins questions to a server: who asks while one is on its way shares the next, so that an
// answer is never older than its question and there is one question at a time however many ask.
type Batch[K comparable, V any] struct {
	ask func(ctx context.Context, keys []K) (map[K]V, error)

	mu      sync.Mutex // guards the fields below
	running bool
	next    *question[K, V]
}

type question[K comparable, V any] struct {
	keys    map[K]bool
	waiting int
	cancel  context.CancelFunc
	ctx     context.Context
	done    chan struct{} // closed when the fields below are set
	answers map[K]V
	err     error
}

// NewBatch returns a batch. ask answers all keys it is given.
func NewBatch[K comparable, V any](ask func(ctx context.Context, keys []K) (map[K]V, error)) *Batch[K, V] {
	return &Batch[K, V]{ask: ask}
}

// Do returns the answer for a key. A question whose askers all have left is given up.
func (b *Batch[K, V]) Do(ctx context.Context, key K) (answer V, err error) {
	b.mu.Lock()
	if b.next == nil {
		q := &question[K, V]{keys: map[K]bool{}, done: make(chan struct{})}
		q.ctx, q.cancel = detached(ctx)
		b.next = q
	}
	q := b.next
	q.keys[key] = true
	q.waiting++
	if !b.running {
		b.running = true
		go b.run()
	}
	b.mu.Unlock()
	defer b.leave(q)
	select {
	case <-ctx.Done():
		return answer, ctx.Err()
	case <-q.done:
	}
	if q.err != nil {
		return answer, q.err
	}
	answer, ok := q.answers[key]
	if !ok {
		return answer, fmt.Errorf("asking for %v: there was no answer", key)
	}
	return answer, nil
}

func (b *Batch[K, V]) leave(q *question[K, V]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q.waiting--
	if q.waiting > 0 {
		return
	}
	q.cancel()
	if b.next == q {
		b.next = nil
	}
}

func (b *Batch[K, V]) run() {
	for {
		b.mu.Lock()
		q := b.next
		b.next = nil
		if q == nil {
			b.running = false
			b.mu.Unlock()
			return
		}
		keys := make([]K, 0, len(q.keys))
		for key := range q.keys {
			keys = append(keys, key)
		}
		b.mu.Unlock()
		q.answers, q.err = b.ask(q.ctx, keys)
		close(q.done)
	}
}

// detached returns a context that does not end with another, but has its values.
func detached(from context.Context) (ctx context.Context, end context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(from))
}

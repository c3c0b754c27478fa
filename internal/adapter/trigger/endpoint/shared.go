// Package endpoint holds what triggers of one server have in common, so that a server sees a few
// connections however many triggers ask it.
package endpoint

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// A Pool keeps things by key while somebody uses them.
type Pool struct {
	lifetime func() (context.Context, context.CancelFunc)
	hurried  atomic.Bool

	mu     sync.Mutex // guards things and each thing's users
	things map[string]*thing
}

type thing struct {
	users int
	once  sync.Once
	value any
	err   error
	close func()
}

// NewPool returns an empty pool. What its things go on with in the background ends with ctx.
func NewPool(ctx context.Context) *Pool {
	return &Pool{
		things:   map[string]*thing{},
		lifetime: func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) },
	}
}

// Lifetime returns a context for what outlives the call that begins it. It ends when end is called
// or with the pool's.
func (p *Pool) Lifetime() (ctx context.Context, end context.CancelFunc) { return p.lifetime() }

// Acquire returns the thing of that key, made by open when nobody has it. The key names everything
// that open depends on, credentials included; it is kept in memory only. The last release closes the
// thing. release may be called once.
//
// A thing whose open failed is not kept.
func Acquire[T any](p *Pool, key string, open func() (T, func(), error)) (value T, release func(), err error) {
	p.mu.Lock()
	t := p.things[key]
	if t == nil {
		t = &thing{}
		p.things[key] = t
	}
	t.users++
	p.mu.Unlock()
	t.once.Do(func() { t.value, t.close, t.err = func() (any, func(), error) { return open() }() })
	if t.err != nil {
		p.release(key, t)
		return value, nil, t.err
	}
	value, ok := t.value.(T)
	if !ok {
		p.release(key, t)
		return value, nil, fmt.Errorf("sharing %T by a key that stands for another type, %T", value, t.value)
	}
	return value, sync.OnceFunc(func() { p.release(key, t) }), nil
}

func (p *Pool) release(key string, t *thing) {
	p.mu.Lock()
	t.users--
	last := t.users == 0
	if last && p.things[key] == t {
		delete(p.things, key)
	}
	p.mu.Unlock()
	if last && t.close != nil {
		t.close()
	}
}

// Len tells how many things are kept, for metrics and tests.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.things)
}

package container

import (
	"context"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

const (
	// quietTime is how long no pod was started before the next sandbox is parked: making one must
	// not slow a burst down.
	quietTime = 150 * time.Millisecond
	// parkRetry is the pause after a sandbox could not be made.
	parkRetry = 10 * time.Second
)

// parking keeps sandboxes ready. It sleeps while it is full.
type parking struct {
	runtime *Runtime
	wake    chan struct{}
	done    chan struct{}
	loop    sync.WaitGroup

	mu    sync.Mutex
	ready []*slot
	taken time.Time // the last time somebody wanted one
}

func newParking(r *Runtime) *parking {
	p := &parking{runtime: r, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if r.cfg.Park > 0 {
		p.loop.Go(p.run)
	}
	return p
}

// take gives a parked slot or nil.
func (p *parking) take() *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = time.Now()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	if len(p.ready) == 0 {
		return nil
	}
	sl := p.ready[0]
	p.ready = p.ready[1:]
	return sl
}

// count is how many are ready.
func (p *parking) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

func (p *parking) run() {
	for {
		for p.count() < p.runtime.cfg.Park {
			if !p.sleep(p.quietIn()) {
				return
			}
			if p.quietIn() > 0 {
				continue
			}
			if err := p.add(); err != nil {
				p.runtime.log.Warn("parking a sandbox", "error", err)
				if !p.sleep(parkRetry) {
					return
				}
			}
		}
		select {
		case <-p.done:
			return
		case <-p.wake:
		}
	}
}

// quietIn is how long until it has been quiet for long enough.
func (p *parking) quietIn() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, quietTime-time.Since(p.taken))
}

// sleep waits; false when the parking was stopped.
func (p *parking) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
		return false
	case <-timer.C:
		return true
	}
}

func (p *parking) add() error {
	r := p.runtime
	sl, err := r.makeSlot(r.ctx, kindOf{})
	if err != nil {
		return err
	}
	if _, err := sl.ask(r.ctx, wire.Request{Parked: true}); err != nil {
		r.demolish(context.WithoutCancel(r.ctx), sl)
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, sl)
	return nil
}

// stop ends parking and takes down what is parked.
func (p *parking) stop() {
	close(p.done)
	p.loop.Wait()
	p.mu.Lock()
	ready := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, sl := range ready {
		p.runtime.demolish(context.WithoutCancel(p.runtime.ctx), sl)
	}
}

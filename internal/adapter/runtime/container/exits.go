package container

import (
	"sync"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// exitQueue passes exits on in order without ever holding up who reports them.
type exitQueue struct {
	out  chan runtime.Container
	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	wait  []delivery
	ready chan struct{} // has one token while wait is not empty
}

type delivery struct {
	end  runtime.Container
	told func() // after it was taken
}

func newExitQueue() *exitQueue {
	q := &exitQueue{out: make(chan runtime.Container), done: make(chan struct{}), ready: make(chan struct{}, 1)}
	q.wg.Go(q.run)
	return q
}

func (q *exitQueue) add(end runtime.Container, told func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wait = append(q.wait, delivery{end, told})
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *exitQueue) run() {
	defer close(q.out)
	for {
		select {
		case <-q.done:
			return
		case <-q.ready:
		}
		q.mu.Lock()
		batch := q.wait
		q.wait = nil
		q.mu.Unlock()
		for _, d := range batch {
			select {
			case <-q.done:
				return
			case q.out <- d.end:
				d.told()
			}
		}
	}
}

func (q *exitQueue) close() {
	close(q.done)
	q.wg.Wait()
}

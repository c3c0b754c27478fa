package endpoint

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// oracle answers a poller.
type oracle struct {
	mu      sync.Mutex // guards all below
	answers map[string]int
	err     error
	asked   [][]string
}

func (o *oracle) ask(_ context.Context, keys []string) (map[string]int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(keys)
	o.asked = append(o.asked, keys)
	return maps.Clone(o.answers), o.err
}

// say has it answer so from now on.
func (o *oracle) say(answers map[string]int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers, o.err = answers, err
}

// questions tells how often it was asked since it was last looked at, and for which keys at last.
func (o *oracle) questions() (n int, last []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n = len(o.asked); n > 0 {
		last = o.asked[n-1]
	}
	o.asked = nil
	return n, last
}

const interval = time.Second

// bench is a poller in a bubble.
type bench struct {
	*testing.T

	oracle *oracle
	poller *Poller[string, int]
	mu     sync.Mutex // guards woken
	woken  map[string]int
}

// poll runs a test in a bubble that ends when the poller has.
func poll(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, oracle: &oracle{answers: map[string]int{"a": 1, "b": 1}}, woken: map[string]int{}}
		b.poller = NewPoller(NewPool(t.Context()), interval, b.oracle.ask)
		test(b)
		b.poller.Wait()
	})
}

// watch has someone watch a key.
func (b *bench) watch(who, key string) (stop func()) {
	return b.poller.Watch(key, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.woken[who]++
	})
}

// after lets time pass and checks who was woken meanwhile, and how often.
func (b *bench) after(d time.Duration, what string, want map[string]int) {
	b.Helper()
	<-time.After(d)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !maps.Equal(b.woken, want) {
		b.Errorf("%s: woken %v; want %v", what, b.woken, want)
	}
	clear(b.woken)
}

func TestPollerWakesWhomAChangeConcerns(t *testing.T) {
	poll(t, func(b *bench) {
		stopA, stopB := b.watch("A", "a"), b.watch("B", "b")
		b.after(interval/2, "the first answer", map[string]int{"A": 1, "B": 1})
		b.after(10*interval, "the same answers", nil)
		if n, last := b.oracle.questions(); n != 11 || !slices.Equal(last, []string{"a", "b"}) {
			b.Errorf("asked %d times, last for %v; want once an interval for both", n, last)
		}
		b.oracle.say(map[string]int{"a": 2, "b": 1}, nil)
		b.after(interval, "another answer for a", map[string]int{"A": 1})
		b.oracle.say(map[string]int{"a": 2, "b": 0}, nil)
		b.after(interval, "another answer for b", map[string]int{"B": 1})
		stopA()
		b.oracle.say(map[string]int{"a": 3, "b": 3}, nil)
		b.after(interval, "changes after A stopped", map[string]int{"B": 1})
		if _, last := b.oracle.questions(); !slices.Equal(last, []string{"b"}) {
			b.Errorf("asked for %v; want no key that nobody watches", last)
		}
		stopB()
	})
}

func TestPollerWakesWhoComesLate(t *testing.T) {
	poll(t, func(b *bench) {
		defer b.watch("first", "a")()
		b.after(5*interval/2, "the first answer", map[string]int{"first": 1})
		defer b.watch("late", "a")()
		b.after(interval, "the same answer, new to one", map[string]int{"late": 1})
		b.after(3*interval, "the same answer, known to both", nil)
		b.oracle.say(map[string]int{"a": 2}, nil)
		b.after(interval, "another answer", map[string]int{"first": 1, "late": 1})
	})
}

func TestPollerMakesUpForAKeyLeftUnanswered(t *testing.T) {
	poll(t, func(b *bench) {
		defer b.watch("A", "a")()
		defer b.watch("B", "b")()
		b.after(interval/2, "the first answer", map[string]int{"A": 1, "B": 1})
		b.oracle.say(map[string]int{"b": 1}, nil)
		b.after(2*interval, "no answer for a", nil)
		b.oracle.say(map[string]int{"a": 1, "b": 1}, nil)
		b.after(interval, "an equal answer for a", map[string]int{"A": 1})
		b.after(2*interval, "the same again", nil)
	})
}

func TestPollerMakesUpForAnError(t *testing.T) {
	poll(t, func(b *bench) {
		defer b.watch("A", "a")()
		defer b.watch("B", "b")()
		b.after(interval/2, "the first answer", map[string]int{"A": 1, "B": 1})
		b.oracle.questions()
		b.oracle.say(map[string]int{"a": 9, "b": 9}, errors.New("connection refused"))
		b.after(time.Minute, "errors", nil)
		if n, _ := b.oracle.questions(); n < 12 || n > 20 {
			b.Errorf("asked %d times in a minute of errors; want longer pauses, up to %s", n, longest)
		}
		b.oracle.say(map[string]int{"a": 1, "b": 1}, nil)
		b.after(longest, "the next answer, equal to the last", map[string]int{"A": 1, "B": 1})
		b.oracle.questions()
		b.after(10*interval, "the same again", nil)
		if n, _ := b.oracle.questions(); n != 10 {
			b.Errorf("asked %d times in 10 intervals once it is well again", n)
		}
	})
}

func TestPollerRestsWhileNobodyWatches(t *testing.T) {
	poll(t, func(b *bench) {
		b.after(time.Minute, "no watcher", nil)
		if n, _ := b.oracle.questions(); n != 0 {
			b.Errorf("asked %d times before anybody watched", n)
		}
		stop := b.watch("A", "a")
		b.after(interval/2, "the first answer", map[string]int{"A": 1})
		stop()
		stop() // counts once
		b.poller.Wait()
		b.oracle.questions()
		b.after(time.Minute, "no watcher any more", nil)
		if n, _ := b.oracle.questions(); n != 0 {
			b.Errorf("asked %d times after everybody had left", n)
		}
		defer b.watch("B", "a")()
		b.after(interval/2, "an answer that only others knew", map[string]int{"B": 1})
	})
}

func TestPollerEndsWithThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := &oracle{answers: map[string]int{"a": 1}}
		p := NewPoller(NewPool(ctx), interval, o.ask)
		defer p.Watch("a", func() {})()
		<-time.After(interval / 2)
		cancel()
		p.Wait()
		if n, _ := o.questions(); n != 1 {
			t.Errorf("asked %d times; want once before the end", n)
		}
	})
}

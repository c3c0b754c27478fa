package endpoint

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

// opener makes things of its name and keeps count of them.
type opener struct {
	opened, closed int
}

func (o *opener) open() (*opener, func(), error) {
	o.opened++
	return o, func() { o.closed++ }, nil
}

func TestPoolSharesByKey(t *testing.T) {
	p := NewPool(t.Context())
	var a, b opener
	first, releaseFirst, err := Acquire(p, "a", a.open)
	if err != nil {
		t.Fatal(err)
	}
	second, releaseSecond, err := Acquire(p, "a", a.open)
	if err != nil || first != second || a.opened != 1 {
		t.Errorf("the second has %p after %p and %v, opened %d times; want the same thing", second, first, err, a.opened)
	}
	_, releaseOther, err := Acquire(p, "b", b.open)
	if err != nil || b.opened != 1 || p.Len() != 2 {
		t.Errorf("another key: %v, opened %d times, %d things; want a thing of its own", err, b.opened, p.Len())
	}
	releaseFirst()
	releaseFirst() // counts once
	if a.closed != 0 || p.Len() != 2 {
		t.Errorf("closed %d times while it is used", a.closed)
	}
	releaseSecond()
	if a.closed != 1 || b.closed != 0 || p.Len() != 1 {
		t.Errorf("closed %d and %d times, %d things left; want the one that nobody uses to be closed", a.closed, b.closed, p.Len())
	}
	_, release, err := Acquire(p, "a", a.open)
	if err != nil || a.opened != 2 {
		t.Errorf("after its end: %v, opened %d times; want it opened again", err, a.opened)
	}
	release()
	releaseOther()
	if a.closed != 2 || b.closed != 1 || p.Len() != 0 {
		t.Errorf("closed %d and %d times, %d things left", a.closed, b.closed, p.Len())
	}
}

func TestPoolOpensOnceForAllWhoWait(t *testing.T) {
	const many = 20
	p := NewPool(t.Context())
	opened := 0
	var come, had, all sync.WaitGroup
	come.Add(many)
	had.Add(many)
	for range many {
		all.Go(func() {
			come.Done()
			value, release, err := Acquire(p, "slow", func() (int, func(), error) {
				come.Wait()
				opened++
				return 7, func() {}, nil
			})
			if err != nil || value != 7 {
				t.Errorf("Acquire() = %d, %v; want 7", value, err)
			}
			had.Done()
			had.Wait()
			if err == nil {
				release()
			}
		})
	}
	all.Wait()
	if opened != 1 || p.Len() != 0 {
		t.Errorf("opened %d times, %d things left; want 1 and none", opened, p.Len())
	}
}

func TestPoolKeepsNothingThatDidNotOpen(t *testing.T) {
	p := NewPool(t.Context())
	refused := errors.New("connection refused")
	if _, release, err := Acquire(p, "a", func() (int, func(), error) { return 0, nil, refused }); !errors.Is(err, refused) || release != nil {
		t.Errorf("Acquire() fails with %v; want what open said", err)
	}
	if p.Len() != 0 {
		t.Errorf("%d things are kept", p.Len())
	}
	var a opener
	_, release, err := Acquire(p, "a", a.open)
	if err != nil || a.opened != 1 {
		t.Fatalf("the next one has %v, opened %d times; want it to open anew", err, a.opened)
	}
	release()
}

func TestPoolTellsTypesApart(t *testing.T) {
	p := NewPool(t.Context())
	var a opener
	_, release, err := Acquire(p, "a", a.open)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = Acquire(p, "a", func() (string, func(), error) { t.Error("opened"); return "", func() {}, nil })
	if err == nil || !strings.Contains(err.Error(), "another type") {
		t.Errorf("another type by the same key: %v; want an error", err)
	}
	if a.closed != 0 {
		t.Error("it was closed under its user")
	}
	release()
	if a.closed != 1 || p.Len() != 0 {
		t.Errorf("closed %d times, %d things left; the failed attempt counts as a user", a.closed, p.Len())
	}
}

func TestLifetimeEndsWithThePool(t *testing.T) {
	outer, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := NewPool(outer)
	first, end := p.Lifetime()
	second, endSecond := p.Lifetime()
	defer endSecond()
	end()
	if first.Err() == nil || second.Err() != nil {
		t.Errorf("after the end of one: %v and %v; want only that one to have ended", first.Err(), second.Err())
	}
	cancel()
	if second.Err() == nil {
		t.Error("a lifetime outlives its pool")
	}
}

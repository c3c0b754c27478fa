package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hub returns a hub whose sessions are counted and wake each key they come to follow.
func hub(t *testing.T, sessions *atomic.Int32) *Hub[string] {
	return NewHub(NewPool(t.Context()), "test", slog.New(slog.DiscardHandler), func(ctx context.Context, h *Hub[string]) error {
		sessions.Add(1)
		known := map[string]bool{}
		for {
			keys, changed := h.Keys()
			for _, key := range keys {
				if !known[key] {
					known[key] = true
					h.Wake(key)
				}
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
		}
	})
}

func TestHubHasOneSessionWhileAnybodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sessions, a, b atomic.Int32
		h := hub(t, &sessions)
		defer h.Close()
		stopA := h.Watch("a", func() { a.Add(1) })
		stopB := h.Watch("b", func() { b.Add(1) })
		synctest.Wait()
		if sessions.Load() != 1 || a.Load() != 1 || b.Load() != 1 {
			t.Errorf("%d sessions, %d and %d wakes; want one each", sessions.Load(), a.Load(), b.Load())
		}
		time.Sleep(time.Second)
		h.Wake("a")
		if a.Load() != 2 || b.Load() != 1 {
			t.Errorf("a and b were woken %d and %d times; want 2 and 1", a.Load(), b.Load())
		}
		stopA()
		stopB()
		time.Sleep(linger - time.Second)
		h.Watch("a", func() {})()
		synctest.Wait()
		if sessions.Load() != 1 {
			t.Errorf("who came back soon found session %d; want the first", sessions.Load())
		}
		time.Sleep(2 * linger)
		stop := h.Watch("a", func() {})
		defer stop()
		synctest.Wait()
		if sessions.Load() != 2 {
			t.Errorf("who came back late found session %d; want the second", sessions.Load())
		}
	})
}

func TestHubBoundsWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sessions, woken atomic.Int32
		h := hub(t, &sessions)
		defer h.Close()
		stop := h.Watch("a", func() { woken.Add(1) })
		synctest.Wait()
		time.Sleep(time.Second)
		woken.Store(0)
		for range 1000 {
			h.Wake("a")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(gap)
		if n := woken.Load(); n < 150 || n > 210 {
			t.Errorf("woken %d times by 1000 hints in a second; want about 200", n)
		}
		woken.Store(0)
		h.Wake("a")
		h.Wake("a")
		stop()
		time.Sleep(time.Second)
		if n := woken.Load(); n != 1 {
			t.Errorf("woken %d times; want 1, as the second was stopped before it was due", n)
		}
	})
}

func TestHubTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sessions atomic.Int32
		h := NewHub(NewPool(t.Context()), "test", slog.New(slog.DiscardHandler), func(context.Context, *Hub[int]) error {
			sessions.Add(1)
			return errors.New("nobody answers")
		})
		defer h.Close()
		defer h.Watch(1, func() {})()
		time.Sleep(time.Minute)
		if n := sessions.Load(); n < 12 || n > 25 {
			t.Errorf("%d sessions in a minute; want pauses from %s to %s", n, soonest, longest)
		}
	})
}

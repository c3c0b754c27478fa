package network

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

func TestFiftyPodsAtOnceAnswerWithoutTail(t *testing.T) {
	w := netnstest.New(t)
	_, pods := newPods(t, w, w.Config(32))
	const count = 50
	took := make([]time.Duration, count)
	prepared := make([]time.Duration, count)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range count {
		wg.Go(func() {
			a, err := pods.Prepare(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = pods.Discard(context.WithoutCancel(t.Context()), a) })
			prepared[i] = time.Since(begin)
			s, err := netns.OpenSpace(a.NetnsPath)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			netnstest.Serve(t, s, "0.0.0.0:80", "hello")
			if _, err := netnstest.Ask(t.Context(), w.Host, a.IP.String()+":80"); err != nil {
				t.Error(err)
			}
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	slices.Sort(took)
	slices.Sort(prepared)
	t.Logf("prepared: half %v, all %v; answered: half %v, all %v", prepared[count/2], prepared[count-1], took[count/2], took[count-1])
	if worst := took[count-1]; worst > 900*time.Millisecond {
		t.Errorf("slowest of %d pods answered after %v: a packet was lost and sent again", count, worst)
	}
}

func BenchmarkPrepare(b *testing.B) {
	w := netnstest.New(b)
	_, pods := newPods(b, w, w.Config(33))
	var made []*Attachment
	for b.Loop() {
		a, err := pods.Prepare(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		made = append(made, a)
	}
	for _, a := range made {
		if err := pods.Discard(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiscard(b *testing.B) {
	w := netnstest.New(b)
	_, pods := newPods(b, w, w.Config(34))
	for b.Loop() {
		b.StopTimer()
		a, err := pods.Prepare(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := pods.Discard(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}

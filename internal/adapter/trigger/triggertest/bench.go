package triggertest

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// Bench fills in an environment for benchmarks.
func Bench(b *testing.B, env *trigger.Environment) {
	b.Helper()
	env.Dial = (&net.Dialer{Timeout: 2 * time.Second}).DialContext
	env.Shared = endpoint.NewPool(b.Context())
	env.Log = slog.New(slog.DiscardHandler)
}

// Wakes measures how long after add has returned, or earlier, an idle trigger is told of it, and
// reports the median, the 99th percentile and the worst.
func Wakes(b *testing.B, source trigger.Source, add func()) {
	b.Helper()
	pusher, ok := source.(trigger.Pusher)
	if !ok {
		b.Fatal("it cannot tell by itself")
	}
	woken := make(chan time.Time, 1)
	defer pusher.Watch(trigger.Idle, func() {
		select {
		case woken <- time.Now():
		default:
		}
	})()
	quiet(woken, time.Second)
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		add()
		select {
		case at := <-woken:
			took = append(took, max(0, at.Sub(begin)))
		case <-time.After(30 * time.Second):
			b.Fatal("nobody told of work")
		}
		// Work comes at any time; a fixed pause would fall in step with those who poll.
		quiet(woken, 300*time.Millisecond+rand.N(300*time.Millisecond))
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	for name, at := range map[string]int{"p50-ms": len(took) / 2, "p99-ms": len(took) * 99 / 100, "max-ms": len(took) - 1} {
		b.ReportMetric(float64(took[at].Microseconds())/1000, name)
	}
}

// quiet forgets wakes until none came for a while.
func quiet(woken <-chan time.Time, pause time.Duration) {
	for {
		select {
		case <-woken:
		case <-time.After(pause):
			return
		}
	}
}

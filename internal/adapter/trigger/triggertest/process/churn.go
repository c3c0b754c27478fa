package process

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// reconnects tells how often connections are to be cut: EBB_RECONNECTS times, or some, and not for long.
func reconnects() (times int, long time.Duration) {
	if n, err := strconv.Atoi(os.Getenv("EBB_RECONNECTS")); err == nil && n > 0 {
		return n, time.Hour
	}
	return 50, 3 * time.Second
}

// least is how often connections are cut at least.
const least = 15

// usage is what a process holds.
type usage struct {
	goroutines, files int
	heap              int64 // bytes
}

func use(t testing.TB) usage {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return usage{runtime.NumGoroutine(), len(files), int64(memory.HeapAlloc)}
}

// Churn has ask find a new connection again and again, EBB_RECONNECTS times or some, and checks that nothing is left
// of the old ones: no goroutine, no open file, no memory.
func (l *Line) Churn(t *testing.T, ask func(ctx context.Context) error) {
	t.Helper()
	var before usage
	first, begin := l.Accepted(), time.Now()
	times, long := reconnects()
	for n := range times {
		if n >= least && time.Since(begin) > long {
			times = n
			break
		}
		for deadline := time.Now().Add(30 * time.Second); ; {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			err := ask(ctx)
			cancel()
			if err == nil {
				break
			}
			// A question that was on a connection when it was cut fails; the next finds a new one.
			if time.Now().After(deadline) {
				t.Fatalf("after %d cuts: %v", n, err)
			}
		}
		if n == min(times/10, least/3) {
			before = use(t)
		}
		l.Drop()
	}
	if n := l.Accepted() - first; n < times*99/100 {
		t.Errorf("there were %d connections; want about %d", n, times)
	}
	// What was cut last may still be on its way out. The margins are for connections that come and go,
	// and far below what one of something for each reconnect would come to.
	most := usage{before.goroutines + 6, before.files + 6, before.heap + 256<<10 + int64(times)<<9}
	after := use(t)
	for deadline := time.Now().Add(10 * time.Second); after.exceeds(most) && time.Now().Before(deadline); after = use(t) {
		<-time.After(50 * time.Millisecond)
	}
	t.Logf("%d reconnects: %+v became %+v", times, before, after)
	if after.exceeds(most) {
		buffer := make([]byte, 1<<20)
		t.Errorf("%+v became %+v in %d reconnects\n%s", before, after, times, buffer[:runtime.Stack(buffer, true)])
	}
}

func (u usage) exceeds(most usage) bool {
	return u.goroutines > most.goroutines || u.files > most.files || u.heap > most.heap
}

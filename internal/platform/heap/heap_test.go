package heap

import (
	"math"
	"runtime/debug"
	"testing"
	"time"
)

// collecting is the margin in force, in percent.
func collecting() int {
	now := debug.SetGCPercent(math.MaxInt32)
	debug.SetGCPercent(now)
	return now
}

func TestMarginIsWiderWhileSomebodyWaits(t *testing.T) {
	before := collecting()
	t.Cleanup(func() { debug.SetGCPercent(before) })
	p := &Pacer{}
	defer p.Stop()
	p.Pace(true)
	hurried := collecting()
	p.Pace(false)
	if steady := collecting(); hurried != startPercent || steady != steadyPercent {
		t.Errorf("a small heap may grow by %d%% in a hurry and by %d%% otherwise", hurried, steady)
	}
	if p.release == nil {
		t.Error("what the hurry left is not given back")
	}
	p.Pace(true)
	if p.release != nil {
		t.Error("memory is given back during a hurry")
	}
}

func TestUsersMarginStays(t *testing.T) {
	t.Setenv("GOGC", "77")
	before := collecting()
	p := New()
	p.Pace(true)
	if now := collecting(); now != before {
		t.Errorf("%d%% became %d%%", before, now)
	}
}

func TestMarginFollowsWhatIsAllocated(t *testing.T) {
	before := collecting()
	t.Cleanup(func() { debug.SetGCPercent(before) })
	p := New()
	defer p.Stop()
	rest := func() {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.adapt(0)
		if now := collecting(); now != steadyPercent {
			t.Errorf("a small heap that rests may grow by %d%%, want %d%%", now, steadyPercent)
		}
	}
	rest()
	var garbage []byte
	for deadline := time.Now().Add(time.Minute); collecting() <= steadyPercent; {
		if time.Now().After(deadline) {
			t.Fatal("the margin stays whatever is allocated")
		}
		garbage = make([]byte, 1<<20)
	}
	_ = garbage
	p.mu.Lock()
	armed := p.release != nil
	p.mu.Unlock()
	if !armed {
		t.Error("the margin stays wider when nothing is allocated any more")
	}
	rest()
	if p.mu.Lock(); p.release == nil {
		t.Error("a collection keeps back what was to be given back")
	}
	p.mu.Unlock()
}

func TestRatesAreOfTheTimeBetween(t *testing.T) {
	then := heapState{at: time.Now(), allocated: 1 << 20}
	for after, want := range map[time.Duration]float64{10 * time.Second: 1 << 20, time.Millisecond: 10 << 20} {
		if got := (heapState{at: then.at.Add(after), allocated: 11 << 20}).since(then); got != want {
			t.Errorf("10 MiB in %s are %.0f bytes a second, want %.0f", after, got, want)
		}
	}
}

package heap

import (
	"math"
	"runtime/debug"
	"testing"
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

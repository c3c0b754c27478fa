package scaler

import (
	"testing"
	"time"
)

func TestIntervalsOfManyObjectsEndTogether(t *testing.T) {
	e := New(Config{})
	ends := map[time.Time]int{}
	for k := range 1000 {
		now := e.made.Add(time.Duration(k) * time.Millisecond)
		at := e.next(now, 30*time.Second)
		if off := at.Sub(now) - 30*time.Second; off < -grid/2 || off > grid/2 {
			t.Fatalf("an interval of 30 s that begins after %d ms is %s off", k, off)
		}
		ends[at]++
		if again := e.next(at.Add(5*time.Millisecond), 30*time.Second); again.Sub(at) != 30*time.Second {
			t.Fatalf("the next one takes %s", again.Sub(at))
		}
		if short := e.next(now, time.Second); short.Sub(now) != time.Second {
			t.Fatalf("an interval of a second takes %s", short.Sub(now))
		}
	}
	if len(ends) > int(time.Second/grid)+1 {
		t.Errorf("intervals that begin within a second end at %d times", len(ends))
	}
}

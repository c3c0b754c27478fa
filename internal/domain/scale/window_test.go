package scale_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

// t0 is even, so that decisions on even seconds begin with it.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func sec(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

type write struct{ at, value float64 }

func TestWindowAverage(t *testing.T) {
	cases := map[string]struct {
		how    scale.Aggregation
		writes []write
		at     float64
		want   float64
	}{
		"nothing recorded": {at: 5, want: 0},
		"one value counts alone": {
			writes: []write{{0, 6}}, at: 0, want: 6,
		},
		"values of the same second add up": {
			writes: []write{{0, 6}, {0.9, 3}}, at: 0, want: 9,
		},
		"the mean begins with the first write": {
			writes: []write{{0, 6}, {2, 3}}, at: 2, want: 3,
		},
		"a full window drops what is older": {
			writes: []write{{0, 60}, {1, 6}, {2, 6}, {3, 6}, {4, 6}, {5, 6}, {6, 6}}, at: 6, want: 6,
		},
		"silence shortens the window instead of counting as zero": {
			writes: []write{{0, 6}, {1, 6}}, at: 3, want: 6,
		},
		"silence of a whole window forgets all": {
			writes: []write{{0, 6}, {1, 6}}, at: 7, want: 0,
		},
		"a write after such a silence starts afresh": {
			writes: []write{{0, 60}, {20, 6}, {21, 6}}, at: 21, want: 6,
		},
		"a late write still counts": {
			writes: []write{{3, 6}, {1, 6}}, at: 3, want: 4,
		},
		"a write older than the window does not": {
			writes: []write{{10, 6}, {1, 6}}, at: 10, want: 6,
		},
		"weights fall by the age": {
			how: scale.WeightedExponential, writes: []write{{0, 10}, {1, 10}}, at: 1, want: 9.536,
		},
		"weights fall in silence, too": {
			how: scale.WeightedExponential, writes: []write{{0, 10}}, at: 2, want: 0.364,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			how := c.how
			if how == "" {
				how = scale.Linear
			}
			w := scale.NewWindow(6*time.Second, how)
			for _, x := range c.writes {
				w.Record(sec(x.at), x.value)
			}
			if got := w.Average(sec(c.at)); math.Abs(got-c.want) > 0.001 {
				t.Errorf("Average() = %v, want %v", got, c.want)
			}
		})
	}
}

func TestAverageWithChangesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		how := scale.Linear
		if random.IntN(2) == 0 {
			how = scale.WeightedExponential
		}
		w := scale.NewWindow(time.Duration(1+random.IntN(12))*time.Second, how)
		at := 0.0
		for range random.IntN(30) {
			at += random.Float64() * 4
			w.Record(sec(at), random.Float64()*100)
		}
		at += random.Float64() * 20
		before, open := w.Average(sec(at)), random.Float64()*100
		first, second := w.AverageWith(sec(at), open), w.AverageWith(sec(at), open)
		if after := w.Average(sec(at)); after != before || first != second {
			t.Fatalf("the window changed: %v, %v, %v, %v", before, first, second, after)
		}
		w.Record(sec(at), open)
		if got := w.Average(sec(at)); got != first {
			t.Fatalf("AverageWith() = %v, but recording gives %v", first, got)
		}
	}
}

func TestWindowResizeKeepsTheNewest(t *testing.T) {
	w := scale.NewWindow(10*time.Second, scale.Linear)
	for s := range 10 {
		w.Record(sec(float64(s)), float64(s))
	}
	w.Resize(4*time.Second, scale.Linear)
	if got := w.Average(sec(9)); got != 7.5 {
		t.Errorf("shrunk: Average() = %v, want 7.5", got)
	}
	w.Resize(20*time.Second, scale.Linear)
	if got := w.Average(sec(9)); got != 7.5 {
		t.Errorf("grown: Average() = %v, want 7.5", got)
	}
	w.Release()
	if !w.Empty(sec(9)) {
		t.Error("released, yet not empty")
	}
}

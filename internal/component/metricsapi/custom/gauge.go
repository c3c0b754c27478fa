package custom

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/platform/demand"
)

// fresh is how long a reading answers further questions; kept bounds how long it is remembered.
const (
	fresh = time.Second
	kept  = 10 * time.Minute
)

// A Reading is a figure averaged over the window before now.
type Reading struct {
	Value  float64
	Window time.Duration
}

// A Gauge reads what a revision's requests come to. Meters are for one reader, so of a revision that
// the autoscaler scales its own averages are shown, of the one metric it looks at.
type Gauge struct {
	demand *demand.Book
	scaled func(rev types.NamespacedName) (metric string, average Reading, known bool)

	mu   sync.Mutex // guards last; held while a meter is read
	last map[types.NamespacedName]sample
}

type sample struct {
	demand.Sample
	taken time.Time
}

// NewGauge reads the book's meters; scaled tells what the autoscaler knows of the revisions it scales.
func NewGauge(book *demand.Book, scaled func(types.NamespacedName) (string, Reading, bool)) *Gauge {
	return &Gauge{demand: book, scaled: scaled, last: map[types.NamespacedName]sample{}}
}

// Read returns a revision's figure, and whether there is one of that name.
func (g *Gauge) Read(rev types.NamespacedName, metric string) (Reading, bool) {
	if metric != Concurrency && metric != RPS {
		return Reading{}, false
	}
	if by, average, known := g.scaled(rev); known {
		return average, by == metric
	}
	s := g.take(rev, time.Now())
	r := Reading{Value: s.Concurrency, Window: s.Elapsed}
	if metric == RPS {
		r.Value = 0
		if s.Elapsed > 0 {
			r.Value = float64(s.Requests) / s.Elapsed.Seconds()
		}
	}
	return r, true
}

// take reads the meter, or repeats what it just said.
func (g *Gauge) take(rev types.NamespacedName, now time.Time) sample {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, ok := g.last[rev]; ok && now.Sub(s.taken) < fresh {
		return s
	}
	for other, s := range g.last {
		if now.Sub(s.taken) > kept {
			delete(g.last, other)
		}
	}
	meter := g.demand.Meter(rev)
	s := sample{meter.Take(now), now}
	meter.Rest()
	g.last[rev] = s
	return s
}

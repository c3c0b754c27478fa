package series

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Buckets are a histogram's upper bounds, in the instrument's unit and in the whole steps that are
// measured in.
type Buckets struct {
	shown []float64
	steps []int64
	each  float64 // steps in one of the unit
}

// Seconds are bounds of durations, which are measured in nanoseconds.
func Seconds(bounds ...float64) *Buckets { return newBuckets(1e9, bounds) }

// Whole are bounds of whole numbers, such as bytes.
func Whole(bounds ...float64) *Buckets { return newBuckets(1, bounds) }

func newBuckets(each float64, bounds []float64) *Buckets {
	b := &Buckets{shown: bounds, each: each, steps: make([]int64, len(bounds))}
	for i, bound := range bounds {
		b.steps[i] = int64(bound * each)
	}
	return b
}

// Histogram counts a distribution. Observe may be called from many goroutines.
type Histogram struct {
	buckets *Buckets
	counts  []atomic.Uint64 // one more than bounds
	sum     atomic.Int64    // in steps; whole, so that it takes one instruction
}

// NewHistogram returns an empty one.
func NewHistogram(b *Buckets) *Histogram {
	return &Histogram{buckets: b, counts: make([]atomic.Uint64, len(b.steps)+1)}
}

// Observe counts one value, in steps: nanoseconds or bytes.
func (h *Histogram) Observe(value int64) {
	i := 0
	for i < len(h.buckets.steps) && value > h.buckets.steps[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(value)
}

// Empty says that nothing was counted yet.
func (h *Histogram) Empty() bool {
	for i := range h.counts {
		if h.counts[i].Load() > 0 {
			return false
		}
	}
	return true
}

// point is the distribution at this moment.
func (h *Histogram) point() metricdata.HistogramDataPoint[float64] {
	p := metricdata.HistogramDataPoint[float64]{
		Bounds: h.buckets.shown, BucketCounts: make([]uint64, len(h.counts)),
		Sum: float64(h.sum.Load()) / h.buckets.each,
	}
	for i := range h.counts {
		p.BucketCounts[i] = h.counts[i].Load()
		p.Count += p.BucketCounts[i]
	}
	return p
}

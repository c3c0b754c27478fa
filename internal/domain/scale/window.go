package scale

import (
	"math"
	"slices"
	"time"
)

// Constants of the exponentially weighted average: the weights of a full window sum up to at least
// weightSum, unless that would make the newest bucket weigh less than leastWeight.
const (
	weightSum   = 0.9999
	leastWeight = 0.2
)

// longestWindow bounds the memory of a window; admission allows no longer one either.
const longestWindow = 3600

// A Window averages a metric over the last seconds. Every second has a bucket; values recorded for
// the same second add up. The buckets are allocated by the first Record and given back by Release,
// so that a window without data costs a few words.
//
// Averages follow Knative: a linear average divides by the buckets between the first and the last
// write (silence after the last write shortens the window instead of counting as zero), and a window
// that has seen no write for its whole length starts afresh.
type Window struct {
	size   int64   // in seconds
	weight float64 // of the newest bucket; 0 for a linear average

	buckets     []float64 // by second modulo size; nil when nothing is recorded
	sum         float64   // of all buckets
	first, last int64     // seconds of the first and the last write
}

// NewWindow returns an empty window of the given length, rounded up to whole seconds and kept
// between one second and one hour.
func NewWindow(length time.Duration, how Aggregation) Window {
	size := min(max(int64(math.Ceil(length.Seconds())), 1), longestWindow)
	w := Window{size: size}
	if how == WeightedExponential {
		w.weight = max(leastWeight, 1-math.Pow(1-weightSum, 1/float64(size)))
	}
	return w
}

// Length is the span the window covers.
func (w *Window) Length() time.Duration { return time.Duration(w.size) * time.Second }

// Record adds value to the bucket of the second that at lies in. Values older than the window are
// dropped.
func (w *Window) Record(at time.Time, value float64) {
	second := at.Unix()
	if w.buckets == nil {
		w.buckets = make([]float64, w.size)
		w.first, w.last = second, second
	}
	if second <= w.last-w.size {
		return
	}
	w.first = min(w.first, second)
	w.advance(second)
	*w.bucket(second) += value
	w.sum += value
}

// bucket returns the bucket of a second; seconds before 1970 have one, too.
func (w *Window) bucket(second int64) *float64 {
	return &w.buckets[(second%w.size+w.size)%w.size]
}

// advance empties the buckets between the last write and second.
func (w *Window) advance(second int64) {
	switch {
	case second <= w.last:
		return
	case second-w.last >= w.size:
		clear(w.buckets)
		w.sum, w.first = 0, second
	default:
		for s := w.last + 1; s <= second; s++ {
			b := w.bucket(s)
			w.sum -= *b
			*b = 0
		}
	}
	w.last = second
}

// Empty reports whether nothing was recorded for longer than the window.
func (w *Window) Empty(now time.Time) bool {
	return w.buckets == nil || now.Unix()-w.last > w.size
}

// Average returns the mean over the window that ends at now.
func (w *Window) Average(now time.Time) float64 {
	if w.buckets == nil {
		return 0
	}
	if w.weight > 0 {
		return w.weighted(now.Unix())
	}
	return w.linear(now.Unix())
}

// AverageWith returns what Average would return had open been recorded at now, and leaves the window
// as it is. Calling it again and again therefore counts nothing twice.
func (w *Window) AverageWith(now time.Time, open float64) float64 {
	trial := *w
	trial.buckets = slices.Clone(w.buckets)
	trial.Record(now, open)
	return trial.Average(now)
}

func (w *Window) linear(now int64) float64 {
	silent := max(0, now-w.last)
	if silent >= w.size {
		return 0
	}
	sum := w.sum
	for s := w.last + 1; s <= now; s++ {
		sum -= *w.bucket(s)
	}
	valid := min(w.last-w.first+1, w.size-silent)
	return round6(sum / float64(valid))
}

func (w *Window) weighted(now int64) float64 {
	silent := max(0, now-w.last)
	if silent >= w.size {
		return 0
	}
	weight := w.weight * math.Pow(1-w.weight, float64(silent))
	mean := 0.0
	for s := w.last; s > w.last-(w.size-silent); s-- {
		mean += *w.bucket(s) * weight
		weight *= 1 - w.weight
	}
	return mean
}

// Resize changes the length and keeps as many of the newest buckets as fit.
func (w *Window) Resize(length time.Duration, how Aggregation) {
	fresh := NewWindow(length, how)
	if fresh.size == w.size && fresh.weight == w.weight {
		return
	}
	for s := max(w.first, w.last-min(w.size, fresh.size)+1); w.buckets != nil && s <= w.last; s++ {
		fresh.Record(time.Unix(s, 0), *w.bucket(s))
	}
	*w = fresh
}

// Release forgets everything and gives the buckets back.
func (w *Window) Release() {
	w.buckets, w.sum, w.first, w.last = nil, 0, 0, 0
}

// round6 rounds to six decimals, which hides what adding and subtracting floats leaves behind.
func round6(f float64) float64 { return math.Round(f*1e6) / 1e6 }

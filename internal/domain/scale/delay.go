package scale

import (
	"math"
	"time"
)

// decisionSpan is the granularity of a delay: wishes made within it count as one, the largest.
const decisionSpan = 2 * time.Second

// A delay remembers the largest wish of the recent past, so that a lower one counts only after it
// has lasted. Entries are kept newest last and largest first: a wish that is not larger than a later
// one can never be the maximum again.
type delay struct {
	spans   int64 // how many spans the past is long
	entries []wish
}

type wish struct {
	span  int64
	value int32
}

func newDelay(length time.Duration) delay {
	return delay{spans: int64(math.Ceil(float64(length) / float64(decisionSpan)))}
}

// hold records value at now and returns the largest recent value.
func (d *delay) hold(now time.Time, value int32) int32 {
	span := now.Unix() / int64(decisionSpan/time.Second)
	n := len(d.entries)
	for n > 0 && d.entries[n-1].value <= value {
		n--
	}
	if n > 0 && d.entries[n-1].span == span {
		value = d.entries[n-1].value
		n--
	}
	d.entries = append(d.entries[:n], wish{span: span, value: value})
	for d.entries[0].span <= span-d.spans {
		d.entries = d.entries[1:]
	}
	return d.entries[0].value
}

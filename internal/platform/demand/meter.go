package demand

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Sample says what happened at a meter since the sample before.
type Sample struct {
	// Concurrency is the time-weighted mean of requests in flight, waiting ones included.
	Concurrency float64
	// Requests is how many requests came in.
	Requests int64
	// InFlight is how many are in flight at the moment of the sample.
	InFlight int64
	// Elapsed is the time the sample covers. After quiet it begins with the first request, not with
	// the sample before.
	Elapsed time.Duration
}

// A Meter counts one revision's requests.
//
// The mean is kept without looking at the clock between events: with n requests in flight at the end
// of a period of length T, the area under the in-flight curve is n·T plus the times of all departures
// minus the times of all arrivals. The order in which goroutines report does not matter.
type Meter struct {
	inFlight atomic.Int64 // written under mu, read without it

	mu      sync.Mutex
	resting bool          // no period is open; the next arrival opens one
	start   time.Time     // when the open period began
	moment  time.Duration // departures minus arrivals, each measured from start
	arrived int64         // arrivals in the open period
}

func newMeter() *Meter { return &Meter{resting: true} }

// In counts a request that arrives at now. It reports whether the meter was at rest, that is whether
// this is the first request after quiet, in which case the caller tells its Sink that the revision is
// Active.
func (m *Meter) In(now time.Time) (first bool) {
	m.mu.Lock()
	if m.resting {
		m.resting, first = false, true
		m.start, m.moment, m.arrived = now, 0, 0
	}
	m.moment -= now.Sub(m.start)
	m.arrived++
	m.inFlight.Add(1)
	m.mu.Unlock()
	return first
}

// Out counts a request that is done at now, whatever became of it. Every In needs exactly one Out.
func (m *Meter) Out(now time.Time) {
	m.mu.Lock()
	m.moment += now.Sub(m.start)
	m.inFlight.Add(-1)
	m.mu.Unlock()
}

// InFlight returns how many requests are in flight now, waiting ones included.
func (m *Meter) InFlight() int64 { return m.inFlight.Load() }

// Take closes the open period at now, returns what happened in it and opens the next. It is for one
// reader: two would share the requests between them.
func (m *Meter) Take(now time.Time) Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.inFlight.Load()
	if m.resting {
		return Sample{InFlight: n}
	}
	s := Sample{Requests: m.arrived, InFlight: n, Elapsed: now.Sub(m.start)}
	if s.Elapsed > 0 {
		area := float64(n)*float64(s.Elapsed) + float64(m.moment)
		s.Concurrency = max(0, area/float64(s.Elapsed))
	}
	m.start, m.moment, m.arrived = now, 0, 0
	return s
}

// Rest closes the open period for good if nothing happened in it and nothing is in flight, and
// reports whether it did. The next request then makes In return true.
func (m *Meter) Rest() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inFlight.Load() > 0 || m.arrived > 0 {
		return false
	}
	m.resting = true
	return true
}

// Arrived returns how many requests came in since the last sample.
func (m *Meter) Arrived() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.arrived
}

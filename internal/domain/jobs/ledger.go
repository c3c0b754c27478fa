package jobs

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// unseenFor is how long a Job that was made may stay out of sight before it is taken to be gone.
const unseenFor = time.Minute

// A Ledger remembers a ScaledJob's Jobs. Its times are those at which something was seen, by one clock.
//
//	made ──▶ pending ──▶ running ──▶ ended
//	             └─ has taken its work ─┘
//
// A Job holds a unit of work that waits until it has taken it: until the level of work fell by as
// much, until it has ended, or until it has been running for the time to settle. A Job whose pods run
// no longer and come again (a retry) holds a unit again.
type Ledger struct {
	// Settle is how long a running Job may take until it has taken its work.
	Settle time.Duration

	jobs  map[string]*entry
	level float64 // at the last observation; NaN before the first
	slack float64 // by how much the level fell beyond what Jobs were found for
}

// entry is one Job; zero times mean that it has not happened.
type entry struct {
	made, begun, taken, ended time.Time
	seen                      bool
}

// NewLedger returns an empty ledger.
func NewLedger(settle time.Duration) *Ledger {
	return &Ledger{Settle: settle, jobs: map[string]*entry{}, level: math.NaN()}
}

// Expect notes a Job that is being made, before it is.
func (l *Ledger) Expect(name string, now time.Time) {
	if l.jobs[name] == nil {
		l.jobs[name] = &entry{made: now}
	}
}

// Forget takes back an Expect: the Job was not made.
func (l *Ledger) Forget(name string) { delete(l.jobs, name) }

// A Sight is what is seen of a Job.
type Sight struct {
	// Running tells that its pods run, or did and succeeded.
	Running bool
	// Ended tells that it has finished.
	Ended bool
	// Since is when it began, by the API. It matters for Jobs that this ledger has not made.
	Since time.Time
}

// See notes a Job as it is now. It reports whether the Job has ended by it.
func (l *Ledger) See(name string, s Sight, now time.Time) bool {
	e := l.jobs[name]
	if e == nil {
		if s.Ended {
			return false // what ended earlier is no matter
		}
		e = &entry{made: s.Since}
		if s.Running {
			e.begun = s.Since // longer ago than now: it may well have settled
		}
		l.jobs[name] = e
	}
	e.seen = true
	switch {
	case s.Ended:
		if e.ended.IsZero() {
			l.end(e, now)
			return true
		}
	case s.Running && e.begun.IsZero():
		e.begun = now
	case !s.Running && !e.begun.IsZero():
		e.begun, e.taken = time.Time{}, time.Time{}
	}
	return false
}

// Lose notes that a Job is gone. It reports whether the Job has ended by it.
func (l *Ledger) Lose(name string, now time.Time) bool {
	e := l.jobs[name]
	if e == nil || !e.ended.IsZero() {
		return false
	}
	l.end(e, now)
	return true
}

// end notes a Job's end. It surely took its work: if that was put down to another Job, which one cannot
// tell by the level alone, the other is held to have none taken after all.
func (l *Ledger) end(e *entry, now time.Time) {
	e.ended = now
	if !e.taken.IsZero() {
		return
	}
	var other *entry
	for _, o := range l.jobs {
		if o.ended.IsZero() && !o.taken.Before(e.made) && !o.taken.IsZero() && (other == nil || likelier(other, o) < 0) {
			other = o
		}
	}
	if other != nil {
		e.taken, other.taken = other.taken, time.Time{}
	}
}

// Observe takes an observation that began at then into account, and counts what matters for it. The
// level tells of work that was taken, unless the observation is not whole: a trigger that failed looks
// like work that was taken. Observations come in the order in which they began.
func (l *Ledger) Observe(level float64, whole bool, then, now time.Time) Counts {
	if whole {
		l.note(level, then)
	}
	return l.count(whole, then, now)
}

// note finds out who took work. Where the level fell, as many Jobs are held to have taken theirs, or
// more work came and fewer did: those that have ended first, then those that run, the oldest first.
func (l *Ledger) note(level float64, then time.Time) {
	fell := l.level - level
	l.level = level
	if !(fell > 0) { // also at the first, when it is not a number
		return
	}
	l.slack += fell
	for _, e := range l.takers() {
		if l.slack < 1 {
			return
		}
		e.taken = then
		l.slack--
	}
	l.slack = 0 // others took it
}

// Reset forgets the level: what is observed changes.
func (l *Ledger) Reset() { l.level, l.slack = math.NaN(), 0 }

// takers are the Jobs of which it is not known that they took their work, those that are likelier to
// have done so first.
func (l *Ledger) takers() []*entry {
	var out []*entry
	for _, e := range l.jobs {
		if e.taken.IsZero() {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, likelier)
	return out
}

// likelier orders Jobs by how likely they are to have taken their work.
func likelier(a, b *entry) int {
	return cmp.Or(earlier(a.ended, b.ended), earlier(a.begun, b.begun), a.made.Compare(b.made))
}

// earlier compares times of which those that have not come yet are the latest.
func earlier(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}

// holds tells whether the Job's unit may have been among what an observation that began then counted.
func (e *entry) holds(then time.Time, settle time.Duration) bool {
	until := e.taken
	if until.IsZero() && !e.begun.IsZero() {
		until = e.begun.Add(settle)
	}
	if !e.ended.IsZero() && (until.IsZero() || e.ended.Before(until)) {
		until = e.ended
	}
	return until.IsZero() || until.After(then)
}

// Counts are a ledger's Jobs, as far as they matter for an observation.
type Counts struct {
	// Running are the unfinished Jobs, Pending those of them that do not run.
	Running, Pending int64
	// RunningThen are those that were unfinished when the observation began.
	RunningThen int64
	// Held are the Jobs, besides those pending, that may not have taken their work before the
	// observation began.
	Held int64
	// Settles is when the next of them will have; zero when no time will tell.
	Settles time.Time
}

// count counts for an observation that began at then. With forget, Jobs that have ended before it are
// forgotten: whatever they took shows in its level.
func (l *Ledger) count(forget bool, then, now time.Time) Counts {
	var c Counts
	for name, e := range l.jobs {
		if !e.seen && e.ended.IsZero() && now.Sub(e.made) > unseenFor {
			l.end(e, now)
		}
		switch {
		case e.ended.IsZero() || e.ended.After(then):
			c.add(e, then, l.Settle)
		case forget:
			delete(l.jobs, name)
		}
	}
	return c
}

// add counts a Job that had not ended when the observation began.
func (c *Counts) add(e *entry, then time.Time, settle time.Duration) {
	c.RunningThen++
	ended := !e.ended.IsZero()
	if !ended {
		c.Running++
	}
	switch {
	case !ended && e.begun.IsZero():
		c.Pending++
	case e.holds(then, settle):
		c.Held++
		if at := e.begun.Add(settle); !ended && (c.Settles.IsZero() || at.Before(c.Settles)) {
			c.Settles = at
		}
	}
}

// Unfinished is the number of Jobs that have not ended.
func (l *Ledger) Unfinished() int {
	n := 0
	for _, e := range l.jobs {
		if e.ended.IsZero() {
			n++
		}
	}
	return n
}

// Package jobs is the arithmetic of ScaledJobs: how much work waits, how many Jobs are to be made for
// it, which finished ones go, and which belong to an earlier version of their ScaledJob.
//
// One Job is made for one unit of work: as much as a trigger's target says. What makes that hard is
// that nobody tells which unit a Job took, and when. A Ledger therefore remembers, of every Job, since
// when it can be held to have taken its unit, and an observation is judged by what was so when it
// began: a unit that was still counted then is not counted against a Job that took it since.
package jobs

import "math"

// The limits of a ScaledJob that says nothing.
const (
	DefaultMax     = 100
	DefaultHistory = 100
)

// Limits bound the number of unfinished Jobs.
type Limits struct {
	// Min Jobs are unfinished at any time, whether or not work waits; work has Jobs of its own.
	Min int64
	// Max is the most that may be unfinished at once.
	Max int64
}

// NewLimits returns the limits that two optional fields mean: a minimum beyond the maximum is cut.
func NewLimits(least, most *int32) Limits {
	l := Limits{Max: DefaultMax}
	if least != nil {
		l.Min = max(0, int64(*least))
	}
	if most == nil {
		l.Max = max(l.Max, l.Min)
		return l
	}
	l.Max = max(0, int64(*most))
	l.Min = min(l.Min, l.Max)
	return l
}

// forWork is how many Jobs there may be for work.
func (l Limits) forWork() int64 { return l.Max - l.Min }

// A Combination says how the values of several triggers become one.
type Combination string

// The combinations; anything else is Largest.
const (
	Largest  Combination = "max"
	Smallest Combination = "min"
	Average  Combination = "avg"
	Sum      Combination = "sum"
)

// A Target is a metric and the value that makes one Job; 0 when it has none by average.
type Target struct {
	Metric  string
	Average float64
}

// A Reading is a metric's value.
type Reading struct {
	Metric string
	Value  float64
	Active bool
}

// A Trigger is what one source of work said.
type Trigger struct {
	Targets  []Target
	Readings []Reading
}

// A Demand is the work that waits.
type Demand struct {
	// Active tells that there is work.
	Active bool
	// Queue is the combined value of the triggers.
	Queue int64
	// Jobs is how many Jobs that makes, at most as many as there may be; Whole is without that bound.
	Jobs, Whole int64
	// Level is how many Jobs the whole of all triggers' values makes, active or not, without a bound.
	// It is what tells that work was taken.
	Level float64
}

// measure is one metric of one trigger.
type measure struct {
	queue, jobs, level float64
	active             bool
}

// NewDemand combines what the triggers said.
func NewDemand(triggers []Trigger, how Combination, limits Limits) Demand {
	var all []measure
	d := Demand{}
	for _, t := range triggers {
		measured := t.measures(limits)
		for _, m := range measured {
			d.Level += m.level
		}
		all = append(all, measured...)
	}
	total := combine(all, how)
	d.Active = total.active || limits.Min > 0
	d.Queue, d.Whole = ceil(total.queue), ceil(total.level)
	d.Jobs = ceil(min(total.jobs, float64(limits.forWork())))
	return d
}

// measures judges a trigger: of its metrics the first alone has a value that counts, and each is active
// when it or one before it is. That is upstream's reckoning.
func (t Trigger) measures(limits Limits) []measure {
	var out []measure
	target, active := t.target(), false
	for _, spec := range t.Targets {
		m := measure{}
		found := false
		for _, r := range t.Readings {
			if r.Metric != spec.Metric {
				continue
			}
			found, active = true, active || r.Active
			if r.Metric == t.Targets[0].Metric {
				m.queue += sound(r.Value)
			}
		}
		if !found {
			continue
		}
		if target > 0 {
			m.level = m.queue / target
			m.jobs = min(m.level, float64(limits.forWork()))
		}
		m.active = active
		out = append(out, m)
	}
	return out
}

// target is the mean of the targets.
func (t Trigger) target() float64 {
	if len(t.Targets) == 0 {
		return 0
	}
	sum := 0.0
	for _, spec := range t.Targets {
		sum += spec.Average
	}
	return sum / float64(len(t.Targets))
}

func combine(all []measure, how Combination) measure {
	var out measure
	count := 0.0
	for _, m := range all {
		if !m.active {
			continue
		}
		count++
		switch how {
		case Smallest:
			if out.queue == 0 || m.queue < out.queue {
				out = m
			}
		case Average, Sum:
			out.queue, out.jobs, out.level = out.queue+m.queue, out.jobs+m.jobs, out.level+m.level
			out.active = true
		default:
			if m.queue > out.queue {
				out = m
			}
		}
	}
	if how == Average && count > 0 {
		out.queue, out.jobs, out.level = out.queue/count, out.jobs/count, out.level/count
	}
	return out
}

// sound leaves out what is no amount of work.
func sound(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0
	}
	return v
}

// ceil rounds up to a number that a Job's count can have.
func ceil(v float64) int64 { return int64(math.Ceil(min(v, math.MaxInt32))) }

package jobs

import (
	"fmt"
	"strconv"
)

// A Kind names a strategy: what is known of the work that Jobs have taken.
type Kind string

// The kinds; anything else is Default.
const (
	// Default is for sources that count work until its Job has finished.
	Default Kind = "default"
	// Custom takes a part of the unfinished Jobs, and a fixed number, off the demand.
	Custom Kind = "custom"
	// Accurate is for sources that no longer count what a Job has taken.
	Accurate Kind = "accurate"
	// Eager is Accurate that leaves room for Jobs that are not under way yet.
	Eager Kind = "eager"
)

// A Strategy makes a number of Jobs of a Demand.
type Strategy struct {
	Kind Kind
	// Deduction and Percentage are Custom's: a number of Jobs, and a part of those unfinished (1 is all).
	Deduction  int64
	Percentage float64
}

// NewStrategy reads a strategy's fields. A percentage that is no number makes it the default one.
func NewStrategy(kind string, deduction *int32, percentage string) Strategy {
	s := Strategy{Kind: Kind(kind)}
	switch s.Kind {
	case Accurate, Eager:
	case Custom:
		part, err := strconv.ParseFloat(percentage, 64)
		if err != nil {
			return Strategy{Kind: Default}
		}
		s.Percentage = part
		if deduction != nil {
			s.Deduction = int64(*deduction)
		}
	default:
		s.Kind = Default
	}
	return s
}

// effective is upstream's formula: how many Jobs to make at most, and how many are wanted.
func (s Strategy) effective(d Demand, running, pending, most int64) (effective, wanted int64) {
	switch s.Kind {
	case Custom:
		return min(d.Jobs-s.Deduction-int64(float64(running)*s.Percentage), most), d.Queue
	case Accurate:
		if d.Jobs+running-pending > most {
			return most - running, d.Queue
		}
		return d.Jobs - pending, d.Queue
	case Eager:
		return min(most-running-pending, d.Jobs), most
	default:
		return d.Jobs - running, d.Queue
	}
}

// A Reason says what bounded the number of Jobs that are made.
type Reason string

// The reasons.
const (
	// Inactive: no work waits.
	Inactive Reason = "Inactive"
	// Enough: the strategy finds that there are Jobs for all work.
	Enough Reason = "Enough"
	// OnTheWay: Jobs were made for this work that have not taken it yet.
	OnTheWay Reason = "OnTheWay"
	// Full: as many Jobs are unfinished as there may be.
	Full Reason = "Full"
	// Wanted: all Jobs that the work asks for are made.
	Wanted Reason = "Wanted"
	// Minimum: Jobs are made to have the least number of them.
	Minimum Reason = "Minimum"
)

// A Decision says how many Jobs to make, and why.
type Decision struct {
	// Create is how many Jobs to make now, Least of them for the minimum.
	Create, Least int64
	Reason        Reason
	// Short is for how many Jobs there would be work besides: another look is due once one has ended.
	Short int64

	demand Demand
	counts Counts
	limits Limits
}

// Decide says how many Jobs to make. It never makes more than Limits.Max unfinished ones, and none for
// work that another Job was made for.
func Decide(d Demand, c Counts, limits Limits, s Strategy) Decision {
	out := Decision{Reason: Inactive, demand: d, counts: c, limits: limits}
	if !d.Active {
		return out
	}
	room := max(0, limits.Max-c.Running)
	out.Least = min(max(0, limits.Min-c.Running), room)
	pending := c.Pending + out.Least
	running := max(c.Running, limits.Min) - limits.Min
	counted := running
	if s.Kind == Default || s.Kind == Custom {
		counted = max(c.RunningThen, limits.Min) - limits.Min // the source counts them
	}
	effective, wanted := s.effective(d, counted, pending, limits.forWork())
	free := d.Jobs - max(0, pending+c.Held-limits.Min)
	forWork := max(0, min(effective, wanted, free, room-out.Least))
	out.Create = out.Least + forWork
	out.Short = max(0, d.Whole-forWork-max(0, c.doing(s.Kind)+out.Least-limits.Min))
	switch {
	case forWork > 0 && forWork >= d.Whole:
		out.Reason = Wanted
	case out.Least > 0:
		out.Reason = Minimum
	case d.Jobs == 0:
		out.Reason = Enough
	case room-out.Least <= forWork:
		out.Reason = Full
	case free <= min(effective, wanted):
		out.Reason = OnTheWay
	default:
		out.Reason = Enough
	}
	return out
}

// doing is how many Jobs the strategy takes to be at work that is counted.
func (c Counts) doing(kind Kind) int64 {
	if kind == Default || kind == Custom {
		return c.RunningThen
	}
	return c.Pending + c.Held
}

// Message says the decision in words.
func (d Decision) Message() string {
	state := fmt.Sprintf("work for %d jobs, %d unfinished (%d not running yet, %d that may not have taken their work) of at most %d",
		d.demand.Jobs, d.counts.Running, d.counts.Pending, d.counts.Held, d.limits.Max)
	switch d.Reason {
	case Inactive:
		return "no trigger is active: no job is made"
	case Minimum:
		return fmt.Sprintf("%d made to have at least %d; %s", d.Create, d.limits.Min, state)
	case Wanted:
		return fmt.Sprintf("%d made, all that are wanted; %s", d.Create, state)
	case Full:
		return fmt.Sprintf("%d made, there is room for no more; %s", d.Create, state)
	case OnTheWay:
		return fmt.Sprintf("%d made, the other work has jobs on their way; %s", d.Create, state)
	default:
		return fmt.Sprintf("%d made, the strategy counts the other work as done by unfinished jobs; %s", d.Create, state)
	}
}

// Package activation decides whether something works at all: a target's way from nothing (or its idle
// count) to its minimum and back. How many replicas work above that is domain/horizontal's. The rules,
// reasons and messages are KEDA's.
//
//	           a trigger is active
//	0, idle ───────────────────────────► max(1, min) ──► horizontal
//	   ▲                                     │
//	   └──── none is active for a cooldown ──┘
package activation

import "time"

// Limits are what an object says about its replicas.
type Limits struct {
	Min  int32
	Idle *int32 // replicas while nothing is active; nil where that is Min
	// Cooldown is how long nothing must have been active; Initial counts from creation, as long as
	// nothing ever was.
	Cooldown, Initial time.Duration
}

// Input is all that a decision depends on.
type Input struct {
	Limits
	Now, Created time.Time
	LastActive   time.Time // zero: never
	Current      int32
	// Active tells that a trigger is, Forced that activity is asked for by annotation.
	Active, Forced bool
	// Failed tells that a trigger could not be asked, Fallback that one is to be replaced then, by how
	// many replicas.
	Failed   bool
	Fallback *int32
	// Unknown tells that a trigger has not said anything yet, or never will.
	Unknown bool
	// NoIn and NoOut forbid to scale in that direction.
	NoIn, NoOut bool
}

// A Condition is one of an object's status; Status is empty where the decision says nothing.
type Condition struct{ Status, Reason, Message string }

// Decision is what follows.
type Decision struct {
	// Replicas is what to write; nil for nothing.
	Replicas *int32
	// Up and Down tell why: work was found, or none was there for long enough.
	Up, Down bool
	// Working sets the last time of activity to now.
	Working bool
	// Wait is how long the cooldown still lasts.
	Wait          time.Duration
	Active, Ready Condition
}

// Values of conditions' status.
const (
	yes     = "True"
	no      = "False"
	unknown = "Unknown"
)

// Decide applies the rules.
func Decide(in Input) Decision {
	if in.Active || in.Forced {
		return in.active()
	}
	return in.inactive()
}

func (in *Input) active() Decision {
	d := Decision{Active: Condition{yes, "ScalerActive", "Scaling is performed because triggers are active"}}
	if in.Forced {
		d.Active.Message = "Scaling is performed because activation is being forced by annotation"
	}
	switch {
	case in.Idle != nil && in.Current < in.Min, in.Current == 0:
		if in.NoOut {
			return d
		}
		d.Up, d.Working, d.Replicas = true, true, new(max(1, in.Min))
	default:
		d.Working = true
	}
	if in.Failed && !d.Up {
		d.Ready = Condition{unknown, "PartialTriggerError", "Some triggers defined in ScaledObject are not working correctly"}
	}
	return d
}

func (in *Input) inactive() Decision {
	d := Decision{Active: Condition{no, "ScalerNotActive", "Scaling is not performed because triggers are not active"}}
	switch {
	case in.Failed && in.Fallback != nil && *in.Fallback != 0:
		// What falls back must not be at zero by then.
	case in.Failed && in.Fallback == nil:
		d.Ready = Condition{no, "TriggerError", "Triggers defined in ScaledObject are not working correctly"}
	case in.Idle != nil && in.Current > *in.Idle, in.Current > 0 && in.Min == 0:
		in.rest(&d)
	case in.Idle == nil && in.Current < in.Min:
		d.Replicas = new(in.Min)
	}
	return d
}

// rest scales in once the cooldown is over.
func (in *Input) rest(d *Decision) {
	if in.NoIn || in.Unknown {
		return
	}
	until := in.LastActive.Add(in.Cooldown)
	if in.LastActive.IsZero() {
		until = in.Created.Add(in.Initial)
	}
	if !until.Before(in.Now) {
		d.Wait = until.Sub(in.Now)
		d.Active = Condition{no, "ScalerCooldown", "Scaler cooling down because triggers are not active"}
		return
	}
	to := in.Min
	if in.Idle != nil {
		to = *in.Idle
	}
	d.Down, d.Replicas = true, &to
}

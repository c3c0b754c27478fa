package scale

import (
	"fmt"
	"strconv"
	"time"
)

// Reason names the rule that decided a number of instances, or an activity. It is one word for
// machines; Decision.Message says the same to people.
type Reason string

// The rules, in the order in which they may take over from each other.
const (
	// Demand is the plain case: the stable average divided by the target.
	Demand Reason = "Demand"
	// NoTraffic means that nothing is asked for.
	NoTraffic Reason = "NoTraffic"
	// LimitedUp and LimitedDown mean that one step may not change more.
	LimitedUp   Reason = "LimitedUp"
	LimitedDown Reason = "LimitedDown"
	// ActivationScaled means that any demand at all starts that many.
	ActivationScaled Reason = "ActivationScale"
	// Panicking means that the panic average decides; PanicHeld that the peak of the panic is kept.
	Panicking Reason = "Panic"
	PanicHeld Reason = "PanicHeld"
	// ScaleDownDelayed means that a lower wish has not lasted long enough.
	ScaleDownDelayed Reason = "ScaleDownDelay"
	// InFlight means that requests are in flight although the averages have forgotten them.
	InFlight Reason = "RequestsInFlight"
	// MinScaled, MaxScaled and InitialScaled mean that a bound decides.
	MinScaled     Reason = "MinScale"
	MaxScaled     Reason = "MaxScale"
	InitialScaled Reason = "InitialScale"
	// Asked means that a floor decides.
	Asked Reason = "Asked"
	// ScaleToZeroOff means that the cluster does not allow zero.
	ScaleToZeroOff Reason = "ScaleToZeroDisabled"
	// StayingActive means that the last instance has not been active for a stable window yet.
	StayingActive Reason = "StayingActive"
	// Retained means that the last instance is kept for its retention period.
	Retained Reason = "Retained"
	// GracePending means that buffering has not been in place for the grace period yet.
	GracePending Reason = "GracePeriod"
	// ActivationPending means that instances on their way up get their time.
	ActivationPending Reason = "ActivationPending"
	// TimedOut means that no instance came up in time.
	TimedOut Reason = "TimedOut"
	// Queued is why a revision is activating: requests wait for instances.
	Queued Reason = "Queued"
)

// Message says in one sentence why the decision is what it is. Figures are of the moment; no times
// of day are in it.
func (d Decision) Message() string {
	switch d.Reason {
	case Demand, Panicking, LimitedUp, LimitedDown, ActivationScaled, PanicHeld, ScaleDownDelayed:
		return d.demand() + d.rule()
	case NoTraffic:
		return fmt.Sprintf("No requests for %s.", brief(d.spec.StableWindow))
	case InFlight:
		return "Requests are still in flight, so one instance stays."
	case TimedOut:
		return fmt.Sprintf("No instance became ready within %s.", brief(d.spec.ActivationTimeout))
	default:
		return d.patience()
	}
}

// demand tells the averages and what they amount to.
func (d Decision) demand() string {
	what := "requests in flight"
	if d.spec.Metric == RPS {
		what = "requests a second"
	}
	return fmt.Sprintf("%s %s over %s (%s over %s) at %s an instance",
		figure(d.Wish.Stable), what, brief(d.spec.StableWindow),
		figure(d.Wish.Panic), brief(d.spec.PanicWindow), figure(d.spec.Target))
}

// rule tells how the averages became the number.
func (d Decision) rule() string {
	n := instances(d.Wish.Count)
	switch d.Reason {
	case Panicking:
		return fmt.Sprintf(" mean a burst: %s.", n)
	case LimitedUp:
		return fmt.Sprintf(" ask for more than one step from %d ready allows: %s.", d.ready, n)
	case LimitedDown:
		return fmt.Sprintf(" ask for less than one step down from %d ready allows: %s.", d.ready, n)
	case ActivationScaled:
		return fmt.Sprintf(" start the activation scale: %s.", n)
	case PanicHeld:
		return fmt.Sprintf(" ask for less, but after a burst nothing shrinks for %s: %s.", brief(d.spec.StableWindow), n)
	case ScaleDownDelayed:
		return fmt.Sprintf(" ask for less, but not for %s yet: %s.", brief(d.spec.ScaleDownDelay), n)
	default:
		return fmt.Sprintf(": %s.", n)
	}
}

// patience tells of bounds and of the last step to zero.
func (d Decision) patience() string {
	switch d.Reason {
	case MinScaled:
		return fmt.Sprintf("Demand asks for %d; the minimum scale is %d.", d.Wish.Count, d.spec.Min)
	case MaxScaled:
		return fmt.Sprintf("Demand asks for %d; the maximum scale is %d.", d.Wish.Count, d.spec.Max)
	case Asked:
		return d.asked()
	case InitialScaled:
		return fmt.Sprintf("A new revision starts with %s.", instances(d.spec.Initial))
	case ScaleToZeroOff:
		return "No requests, but this cluster does not scale to zero."
	case StayingActive:
		return fmt.Sprintf("No requests; one instance stays until the revision has been active for %s.", brief(d.spec.StableWindow))
	case Retained:
		return fmt.Sprintf("No requests; the last instance is retained for %s.", brief(d.spec.Retention))
	case GracePending:
		return fmt.Sprintf("No requests; the last instance stays for a grace period of %s.", brief(d.spec.Grace))
	case ActivationPending:
		return "No requests; instances on their way up get the time to become ready."
	default:
		return string(d.Reason)
	}
}

// asked tells who asks for more than requests do.
func (d Decision) asked() string {
	who := instances(d.floor.Count)
	if d.floor.Count == 1 {
		who += " is"
	} else {
		who += " are"
	}
	message := fmt.Sprintf("Requests ask for %d; %s asked for by %s", d.Wish.Count, who, d.floor.By)
	if d.Want < d.floor.Count {
		message += fmt.Sprintf("; the maximum scale is %d", d.spec.Max)
	}
	return message + "."
}

// figure prints a value with as many decimals as help.
func figure(f float64) string {
	switch {
	case f == 0: // of either sign
		return "0"
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f < 0.01:
		return "<0.01"
	default:
		return strconv.FormatFloat(f, 'g', 3, 64)
	}
}

// brief prints whole minutes and seconds without their zeros.
func brief(d time.Duration) string {
	switch {
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	default:
		return d.String()
	}
}

func instances(n int32) string {
	if n == 1 {
		return "1 instance"
	}
	return strconv.FormatInt(int64(n), 10) + " instances"
}

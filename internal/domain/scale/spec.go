// Package scale turns recent demand into a wanted number of instances.
//
// Everything here is arithmetic: callers hand in samples, what they observe and the time, and get a
// Decision that says how many and why. Nothing is read, waited for or logged, so a test, a replay
// and production agree. The algorithm is Knative's pod autoscaler: averages over a stable and a
// panic window divided by a target, limits on the rate of change, a panic mode that never shrinks, a
// delay before shrinking, bounds, and a patient last step to zero.
package scale

import "time"

// Class says who decides a revision's number of instances.
type Class string

// The classes users may ask for by annotation.
const (
	// KPA is decided here, from requests.
	KPA Class = "kpa.autoscaling.knative.dev"
	// HPA is decided by a Kubernetes HorizontalPodAutoscaler, from CPU, memory or custom metrics.
	HPA Class = "hpa.autoscaling.knative.dev"
)

// Metric is what a revision is scaled on.
type Metric string

// The metrics of class KPA.
const (
	// Concurrency is the number of requests in flight.
	Concurrency Metric = "concurrency"
	// RPS is the number of requests that arrive in a second.
	RPS Metric = "rps"
)

// Aggregation says how the buckets of a window become one value.
type Aggregation string

// The aggregations of a window.
const (
	// Linear gives every second the same weight.
	Linear Aggregation = "linear"
	// WeightedExponential gives recent seconds more weight.
	WeightedExponential Aggregation = "weighted-exponential"
)

// A Spec is everything that is decided about a revision's scaling before any request arrives.
type Spec struct {
	// Service and Configuration name the revision in metrics; nothing is decided by them.
	Service, Configuration string
	// Class tells whether this package decides at all; only KPA is scaled by ebb's autoscaler.
	Class Class
	// Metric is what is measured and Aggregation how a window of it becomes one value.
	Metric      Metric
	Aggregation Aggregation
	// Target is the value of the metric that one instance should carry; Total is what it can carry,
	// before the utilisation percentage is taken off.
	Target, Total float64
	// StableWindow and PanicWindow are the spans averaged over, in whole seconds.
	StableWindow, PanicWindow time.Duration
	// PanicThreshold is the multiple of the ready instances that, when wanted, starts panic.
	PanicThreshold float64
	// MaxScaleUpRate and MaxScaleDownRate limit one step as a multiple of the ready instances.
	MaxScaleUpRate, MaxScaleDownRate float64
	// TargetBurstCapacity is the burst the revision should absorb without buffering: -1 is unlimited.
	TargetBurstCapacity float64
	// ScaleDownDelay is how long a lower wish must last before it counts.
	ScaleDownDelay time.Duration
	// ActivationScale is the fewest instances whenever there is any demand; below 2 it means nothing.
	ActivationScale int32
	// Min and Max bound the wish; Max 0 is no bound. Min counts only while Reachable.
	Min, Max int32
	// Initial is how many instances a new revision must reach once before it is ready.
	Initial int32
	// ScaleToZero allows the last instance to go.
	ScaleToZero bool
	// Grace is how long requests must have been taken in by the gateway before the last instance may
	// go; Retention is how long the last instance stays after the wish became zero.
	Grace, Retention time.Duration
	// ActivationTimeout is how long instances may take to come up before the wish is given up.
	ActivationTimeout time.Duration
	// Reachable says that some route sends traffic here (routing state active).
	Reachable bool

	// Initialized and Before tell what was published about the revision before this process knew it.
	// They matter only the first time a revision is set: Initialized says that the initial scale was
	// reached once, Before is the last Active condition.
	Initialized bool
	Before      Activity
}

// A Floor is a least number of instances that something else than requests asks for. It counts only
// while the revision is reachable, and not above the spec's Max.
type Floor struct {
	Count int32
	// By says who asks.
	By string
}

// Activity is how far a revision is from serving; it becomes the Active condition.
//
//	Activating ─► Active ─► Inactive ─► Activating …
//	     ╰──(timed out)────────▲
type Activity string

// The activities of a revision; the zero value is not known yet.
const (
	// Activating means instances are wanted and too few are ready (Active=Unknown).
	Activating Activity = "Activating"
	// Active means as many instances as needed are ready (Active=True).
	Active Activity = "Active"
	// Inactive means none is wanted (Active=False).
	Inactive Activity = "Inactive"
)

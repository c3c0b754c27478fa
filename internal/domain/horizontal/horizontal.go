// Package horizontal is the arithmetic by which a HorizontalPodAutoscaler scales up on external
// metrics, for those who act before its next look at them, and down for targets that it cannot scale:
// the same numbers give the same count. The source of it is Kubernetes' podautoscaler, as documented
// under "Algorithm details".
package horizontal

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// tolerance is how far a metric may be from its target without anything being done about it.
const tolerance = 0.1

// A Metric is a value and what one replica (AverageValue) or the whole (Value) should have of it.
type Metric struct {
	Name    string
	Value   float64
	Target  float64
	Average bool
}

// A Change is what was added to a target at a time; below 0 what was taken away.
type Change struct {
	At    time.Time
	Added int32
}

// Input is all that a wish depends on.
type Input struct {
	Now      time.Time
	Current  int32 // above 0
	Min, Max int32
	Metrics  []Metric
	// Up are the object's own rules for scaling up; nil means the defaults.
	Up *autoscalingv2.HPAScalingRules
	// Alone tells that no autoscaler looks at the metrics, so those that are no averages count, too.
	Alone bool
	// Added are the changes of the past, the last half hour at least.
	Added []Change
}

// Wish is how many replicas there should be, at least the present number: scaling down is for others.
type Wish struct {
	Replicas int32
	// By names the metric that asked for most; empty when none asks for more than there is.
	By string
	// Bound tells what kept the wish below what the metric asked for; empty if nothing did.
	Bound string
}

// Up returns the wish.
func Up(in Input) Wish {
	w := Wish{Replicas: in.Current}
	asked := in.Current
	for _, m := range in.Metrics {
		if !m.Average && !in.Alone {
			// It tells of the ready pods' load, which these do not carry yet: asked again before
			// they do, it would ask for more each time.
			continue
		}
		if n := m.wants(in.Current, in.tolerance()); n > asked {
			asked, w.By = n, m.Name
		}
	}
	if asked == in.Current {
		return w
	}
	w.Replicas = asked
	limit, bound := in.limit()
	if w.Replicas > limit {
		w.Replicas, w.Bound = limit, bound
	}
	if w.Replicas > in.Max {
		w.Replicas, w.Bound = in.Max, "maxReplicaCount"
	}
	w.Replicas = max(w.Replicas, in.Current)
	return w
}

func (in *Input) tolerance() float64 {
	if in.Up != nil && in.Up.Tolerance != nil {
		return in.Up.Tolerance.AsApproximateFloat64()
	}
	return tolerance
}

// Wants is what a metric alone asks for, by default tolerance and with all replicas ready.
func (m *Metric) Wants(current int32) int32 { return m.wants(current, tolerance) }

// wants is what a metric alone asks for.
func (m *Metric) wants(current int32, within float64) int32 {
	if m.Target <= 0 || math.IsNaN(m.Value) {
		return current
	}
	ratio := m.Value / m.Target
	if m.Average {
		ratio /= float64(current)
	}
	if math.Abs(1-ratio) <= within {
		return current
	}
	n := math.Ceil(ratio * float64(current))
	if m.Average {
		n = math.Ceil(m.Value / m.Target)
	}
	return int32(min(n, math.MaxInt32))
}

// limit is how many replicas the rules allow now, and the name of the one that says so.
func (in *Input) limit() (int32, string) {
	rules := in.Up
	if rules == nil {
		rules = &autoscalingv2.HPAScalingRules{}
	}
	if rules.SelectPolicy != nil && *rules.SelectPolicy == autoscalingv2.DisabledPolicySelect {
		return in.Current, "scaling up is disabled"
	}
	if rules.StabilizationWindowSeconds != nil && *rules.StabilizationWindowSeconds > 0 {
		return in.Current, "stabilizationWindowSeconds" // the autoscaler remembers what was wished before
	}
	return in.within(rules), "behavior.scaleUp"
}

// within is how many replicas the policies of rules allow together.
func (in *Input) within(rules *autoscalingv2.HPAScalingRules) int32 {
	policies := rules.Policies
	if len(policies) == 0 {
		policies = []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}
	}
	least := rules.SelectPolicy != nil && *rules.SelectPolicy == autoscalingv2.MinChangePolicySelect
	limit := int32(0)
	for i, p := range policies {
		n := in.allowed(p)
		if i == 0 || least && n < limit || !least && n > limit {
			limit = n
		}
	}
	return limit
}

// allowed is how many replicas one policy allows, given what changed in its period.
func (in *Input) allowed(p autoscalingv2.HPAScalingPolicy) int32 {
	began := in.began(p)
	if p.Type == autoscalingv2.PodsScalingPolicy {
		return began + p.Value
	}
	return int32(math.Ceil(float64(began) * (1 + float64(p.Value)/100)))
}

// began is how many replicas there were when a policy's period began.
func (in *Input) began(p autoscalingv2.HPAScalingPolicy) int32 {
	began := in.Current
	since := in.Now.Add(-time.Duration(p.PeriodSeconds) * time.Second)
	for _, c := range in.Added {
		if c.At.After(since) {
			began -= c.Added
		}
	}
	return began
}

package horizontal

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

const (
	// SyncPeriod is how often an autoscaler looks at metrics.
	SyncPeriod = 15 * time.Second
	// stabilization is for how long the highest wish counts unless rules say otherwise.
	stabilization = 5 * time.Minute
)

// A Wished is what was asked for at a time.
type Wished struct {
	At time.Time
	Wish
}

// Asked is how many replicas the metrics ask for within the bounds, before all rules on the way there.
// By names the metric that asks for most.
func Asked(in Input) Wish {
	w := Wish{Replicas: 0}
	for _, m := range in.Metrics {
		if n := m.wants(in.Current, in.tolerance()); n > w.Replicas {
			w.Replicas, w.By = n, m.Name
		}
	}
	w.Replicas = min(max(w.Replicas, in.Min, 1), max(in.Max, 1))
	return w
}

// Down returns the wish, at most the present number, given what was asked for until now: the highest of
// it counts for a while. Metrics are not looked at any more.
func Down(in Input, rules *autoscalingv2.HPAScalingRules, asked []Wished) Wish {
	stay := Wish{Replicas: in.Current}
	if rules == nil {
		rules = &autoscalingv2.HPAScalingRules{}
	}
	if rules.SelectPolicy != nil && *rules.SelectPolicy == autoscalingv2.DisabledPolicySelect || len(asked) == 0 {
		return stay
	}
	highest := Wish{Replicas: 0}
	for _, a := range asked {
		if in.Now.Sub(a.At) <= Stabilization(rules) && a.Replicas >= highest.Replicas {
			highest = a.Wish
		}
	}
	if highest.Replicas == 0 || highest.Replicas >= in.Current {
		return stay
	}
	if floor := in.floor(rules); highest.Replicas < floor {
		highest.Replicas, highest.Bound = min(floor, in.Current), "behavior.scaleDown"
	}
	return highest
}

// Stabilization is how long a wish counts by the rules for scaling down.
func Stabilization(rules *autoscalingv2.HPAScalingRules) time.Duration {
	if rules == nil || rules.StabilizationWindowSeconds == nil {
		return stabilization
	}
	return time.Duration(*rules.StabilizationWindowSeconds) * time.Second
}

// floor is how few replicas the policies leave; by default one may go as far as it likes.
func (in *Input) floor(rules *autoscalingv2.HPAScalingRules) int32 {
	least := rules.SelectPolicy != nil && *rules.SelectPolicy == autoscalingv2.MinChangePolicySelect
	floor := int32(0)
	for i, p := range rules.Policies {
		n := max(in.left(p), 0)
		if i == 0 || least && n > floor || !least && n < floor {
			floor = n
		}
	}
	return floor
}

// left is how many replicas one policy leaves, given what changed in its period.
func (in *Input) left(p autoscalingv2.HPAScalingPolicy) int32 {
	began := in.began(p)
	if p.Type == autoscalingv2.PodsScalingPolicy {
		return began - p.Value
	}
	return int32(math.Floor(float64(began) * (1 - float64(p.Value)/100)))
}

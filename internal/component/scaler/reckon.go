package scaler

import (
	"fmt"
	"strconv"

	"github.com/expr-lang/expr"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/domain/horizontal"
)

// reckoning is what an observation comes to.
type reckoning struct {
	metrics []horizontal.Metric // as the autoscaler is to see them
	active  bool
	failed  bool // some trigger did
	unknown bool // some trigger says nothing: it has not answered yet, or is not built in
	fell    bool // a fallback takes the place of a trigger
	// resources tells that all triggers are read by the autoscaler itself.
	resources bool
	// alone tells that no HorizontalPodAutoscaler scales the target.
	alone   bool
	by      []string
	each    map[string]bool    // whether each metric's trigger is active
	worths  map[string]float64 // of metrics, fallbacks included
	err     error              // of the formula
	current int32              // replicas
	values  map[string]any     // of triggers, by name, for the formula
}

// reckon applies fallback and formula to an observation, whose failures are counted. current is the
// present number of replicas.
func (o *object) reckon(so *kedav1alpha1.ScaledObject, seen *observation, current int32) reckoning {
	for i := range seen.triggers {
		a := &seen.triggers[i]
		for j := range a.specs {
			if a.specs[j].External != nil && !a.pending() {
				o.count(so, a.specs[j].External.Metric.Name, a.answer.err != nil)
			}
		}
	}
	return o.weigh(so, seen, current)
}

// weigh is reckon for an observation that was counted.
func (o *object) weigh(so *kedav1alpha1.ScaledObject, seen *observation, current int32) reckoning {
	r := reckoning{each: map[string]bool{}, worths: map[string]float64{}, current: current, values: map[string]any{}, resources: true}
	if kind := so.Status.ScaleTargetGVKR; kind != nil {
		r.alone = o.sole || !o.engine.config.Targets.Horizontal(*kind)
	}
	for i := range seen.triggers {
		a := &seen.triggers[i]
		switch {
		case a.notBuiltIn || a.pending():
			r.unknown = true
		case a.answer.err != nil:
			r.failed = true
		}
		r.resources = r.resources && (a.spec.Type == "cpu" || a.spec.Type == "memory")
		for j := range a.specs {
			if a.specs[j].External != nil && !a.pending() {
				o.metric(so, a, &a.specs[j], &r)
			}
		}
	}
	if so.IsUsingModifiers() {
		o.compose(so, &r)
	}
	return r
}

// metric takes one metric of a trigger into account.
func (o *object) metric(so *kedav1alpha1.ScaledObject, a *said, spec *autoscalingv2.MetricSpec, r *reckoning) {
	m := horizontal.Metric{Name: spec.External.Metric.Name}
	m.Target, m.Average = target(spec)
	switch {
	case a.answer.err == nil:
		for _, reading := range a.readings {
			if reading.Metric == m.Name {
				m.Value += reading.Value.AsApproximateFloat64()
				r.each[m.Name] = r.each[m.Name] || reading.Active
			}
		}
	case !o.replaced(so, m.Name):
		r.each[m.Name] = false
		return
	case so.Spec.Fallback.Behavior == kedav1alpha1.FallbackBehaviorScalingModifiers:
		r.values[a.spec.Name] = nil // the formula says what takes its place
		return
	default:
		m.Value = instead(so.Spec.Fallback, r.current) * m.Target
		if !m.Average {
			m.Value /= float64(max(r.current, 1))
		}
		r.each[m.Name], r.fell = true, true
	}
	r.metrics = append(r.metrics, m)
	r.values[a.spec.Name], r.worths[m.Name] = m.Value, m.Value
	if r.each[m.Name] {
		r.active = true
		r.by = append(r.by, m.Name)
	}
}

func target(spec *autoscalingv2.MetricSpec) (value float64, average bool) {
	if t := spec.External.Target; t.AverageValue != nil {
		return t.AverageValue.AsApproximateFloat64(), true
	} else if t.Value != nil {
		return t.Value.AsApproximateFloat64(), false
	}
	return 0, false
}

// count keeps the health of a metric.
func (o *object) count(so *kedav1alpha1.ScaledObject, metric string, failed bool) {
	if so.Spec.Fallback == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	failures, status := int32(0), kedav1alpha1.HealthStatusHappy
	if failed {
		before := o.health[metric].NumberOfFailures
		if before != nil && *before > 0 && o.clock().Sub(o.counted[metric]) < interval(so.Spec.PollingInterval)*9/10 {
			return // pushes and questions do not make it fail more often
		}
		o.counted[metric] = o.clock()
		if before != nil {
			failures = *before
		}
		failures = min(failures+1, so.Spec.Fallback.FailureThreshold+1) // beyond that it changes nothing
		status = kedav1alpha1.HealthStatusFailing
	}
	o.health[metric] = kedav1alpha1.HealthStatus{NumberOfFailures: &failures, Status: status}
}

// replaced tells whether a metric failed so often that the fallback takes its place.
func (o *object) replaced(so *kedav1alpha1.ScaledObject, metric string) bool {
	if so.Spec.Fallback == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	failures := o.health[metric].NumberOfFailures
	return failures != nil && *failures > so.Spec.Fallback.FailureThreshold
}

// instead is how many replicas a fallback stands for.
func instead(f *kedav1alpha1.Fallback, current int32) float64 {
	switch f.Behavior {
	case kedav1alpha1.FallbackBehaviorCurrentReplicas:
		return float64(current)
	case kedav1alpha1.FallbackBehaviorCurrentReplicasIfHigher:
		return float64(max(current, f.Replicas))
	case kedav1alpha1.FallbackBehaviorCurrentReplicasIfLower:
		return float64(min(current, f.Replicas))
	default:
		return float64(f.Replicas)
	}
}

// compose puts the formula's result in place of the metrics.
func (o *object) compose(so *kedav1alpha1.ScaledObject, r *reckoning) {
	modifiers := &so.Spec.Advanced.ScalingModifiers
	composite := horizontal.Metric{Name: kedav1alpha1.CompositeMetricName, Average: modifiers.MetricType != autoscalingv2.ValueMetricType}
	composite.Target, _ = strconv.ParseFloat(modifiers.Target, 64) // admission judged it
	var activation float64
	if modifiers.ActivationTarget != "" {
		activation, _ = strconv.ParseFloat(modifiers.ActivationTarget, 64)
	}
	switch {
	case r.fell:
		composite.Value = instead(so.Spec.Fallback, r.current) * composite.Target
		r.metrics, r.active = []horizontal.Metric{composite}, true
		r.by = []string{composite.Name}
		return
	case r.unknown, r.failed && !so.FallbackScalingModifiers():
		r.metrics, r.active, r.by = nil, false, nil
		return
	}
	result, err := expr.Run(o.formula, r.values)
	if err != nil {
		r.err = fmt.Errorf("error trying to run custom formula: %w", err)
		r.metrics, r.active, r.by = nil, false, nil
		return
	}
	switch v := result.(type) {
	case float64:
		composite.Value = v
	case nil:
		if so.Spec.Fallback != nil {
			composite.Value = float64(so.Spec.Fallback.Replicas) * composite.Target
		}
	default:
		r.err = fmt.Errorf("formula returned non-float result %T (%v)", result, result)
		r.metrics, r.active, r.by = nil, false, nil
		return
	}
	r.metrics, r.active, r.by = []horizontal.Metric{composite}, composite.Value > activation, nil
	if r.active {
		r.by = []string{composite.Name}
	}
}

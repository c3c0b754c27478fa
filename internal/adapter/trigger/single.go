package trigger

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A Single is what Sources of one external metric have in common; they embed it.
type Single struct {
	// Name is the metric's, as in Specs.
	Name string
	Kind autoscalingv2.MetricTargetType
	// Target is what the HorizontalPodAutoscaler compares the value with.
	Target resource.Quantity
	// Activation is the value above which work counts as waiting.
	Activation float64
}

// Parameters reads the trigger's parameters into a struct with `keda` tags and returns its metric,
// which still lacks a name, a target and an activation threshold.
func (c *Config) Parameters(into any) (Single, error) {
	kind, err := c.External()
	if err != nil {
		return Single{}, err
	}
	if err := c.TypedConfig(into); err != nil {
		return Single{}, fmt.Errorf("reading parameters of %s: %w", c.TriggerType, err)
	}
	return Single{Kind: kind}, nil
}

// Specs implements Source.
func (s *Single) Specs(context.Context) ([]autoscalingv2.MetricSpec, error) {
	return []autoscalingv2.MetricSpec{spec(s.Name, s.Kind, s.Target)}, nil
}

// Reading returns what a Read that found that value returns.
func (s *Single) Reading(value float64) []Reading {
	return []Reading{{Metric: s.Name, Value: Quantity(value), Active: value > s.Activation}}
}

// Judged returns what a Source that found a value of one of its metrics would return. A Source that has no
// activation threshold is active above 0.
func Judged(s Source, metric string, value float64) []Reading {
	if single, ok := s.(interface{ Reading(value float64) []Reading }); ok {
		if readings := single.Reading(value); len(readings) == 1 && readings[0].Metric == metric {
			return readings
		}
	}
	return []Reading{{Metric: metric, Value: Quantity(value), Active: value > 0}}
}

// Package resource asks for scaling by the processor time or the memory that pods use.
package resource

import (
	"context"
	"fmt"
	"strconv"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
)

type parameters struct {
	Type          string `keda:"name=type,          order=triggerMetadata, enum=Utilization;AverageValue, optional, deprecated=The 'type' setting is DEPRECATED and is removed in v2.18 - Use 'metricType' instead."`
	Value         string `keda:"name=value,         order=triggerMetadata"`
	ContainerName string `keda:"name=containerName, order=triggerMetadata, optional"`
	TriggerIndex  int
}

type source struct{ spec autoscalingv2.MetricSpec }

// NewCPU makes a trigger of type cpu.
func NewCPU(c trigger.Config) (trigger.Source, error) { return build(&c, corev1.ResourceCPU) }

// NewMemory makes a trigger of type memory.
func NewMemory(c trigger.Config) (trigger.Source, error) { return build(&c, corev1.ResourceMemory) }

func build(c *trigger.Config, name corev1.ResourceName) (trigger.Source, error) {
	var p parameters
	if err := c.TypedConfig(&p); err != nil {
		return nil, fmt.Errorf("reading parameters of %s: %w", name, err)
	}
	target, err := p.target(c.MetricType)
	if err != nil {
		return nil, fmt.Errorf("reading parameters of %s: %w", name, err)
	}
	if p.ContainerName == "" {
		return &source{autoscalingv2.MetricSpec{
			Type:     autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{Name: name, Target: target},
		}}, nil
	}
	return &source{autoscalingv2.MetricSpec{
		Type: autoscalingv2.ContainerResourceMetricSourceType,
		ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: name, Container: p.ContainerName, Target: target,
		},
	}}, nil
}

func (p *parameters) target(kind autoscalingv2.MetricTargetType) (autoscalingv2.MetricTarget, error) {
	target := autoscalingv2.MetricTarget{Type: kind}
	switch kind {
	case autoscalingv2.AverageValueMetricType:
		value, err := resource.ParseQuantity(p.Value)
		if err != nil {
			return target, fmt.Errorf("parsing value: %w", err)
		}
		target.AverageValue = &value
	case autoscalingv2.UtilizationMetricType:
		value, err := strconv.ParseInt(p.Value, 10, 32)
		if err != nil {
			return target, fmt.Errorf("parsing value: %w", err)
		}
		percent := int32(value)
		target.AverageUtilization = &percent
	default:
		return target, fmt.Errorf("unknown metric type: %s, allowed values are 'Utilization' or 'AverageValue'", kind)
	}
	return target, nil
}

// Specs implements trigger.Source.
func (s *source) Specs(context.Context) ([]autoscalingv2.MetricSpec, error) {
	return []autoscalingv2.MetricSpec{*s.spec.DeepCopy()}, nil
}

// Read implements trigger.Source.
func (s *source) Read(context.Context) ([]trigger.Reading, error) { return nil, nil }

// Close implements trigger.Source.
func (s *source) Close() error { return nil }

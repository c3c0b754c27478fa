package resource

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
)

func subject(name string, build trigger.Build) triggertest.Subject {
	return triggertest.Subject{
		Type: name, Metric: name, Target: "500m", Resource: true,
		Metadata: map[string]string{"value": "500m"},
		Required: []string{"value"},
		Wrong:    map[string]string{"value": "half", "type": "AverageValue"},
		// The suite does not say a metric type, and these have none by themselves.
		Build: func(c trigger.Config) (trigger.Source, error) {
			c.MetricType = autoscalingv2.AverageValueMetricType
			return build(c)
		},
	}
}

func TestResource(t *testing.T) {
	for name, build := range map[string]trigger.Build{"cpu": NewCPU, "memory": NewMemory} {
		t.Run(name, func(t *testing.T) { triggertest.Run(t, subject(name, build)) })
	}
}

func TestSpecs(t *testing.T) {
	percent, gigabyte := int32(50), resource.MustParse("1Gi")
	utilization := autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent}
	for name, test := range map[string]struct {
		build trigger.Build
		kind  autoscalingv2.MetricTargetType
		over  map[string]string
		want  autoscalingv2.MetricSpec
	}{
		"the use of all containers": {
			NewCPU, autoscalingv2.UtilizationMetricType,
			map[string]string{"value": "50"},
			autoscalingv2.MetricSpec{
				Type:     autoscalingv2.ResourceMetricSourceType,
				Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU, Target: utilization},
			},
		},
		"the use of one container": {
			NewMemory, autoscalingv2.UtilizationMetricType,
			map[string]string{"value": "50", "containerName": "foo"},
			autoscalingv2.MetricSpec{
				Type:              autoscalingv2.ContainerResourceMetricSourceType,
				ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: corev1.ResourceMemory, Container: "foo", Target: utilization},
			},
		},
		"an amount in one container": {
			NewMemory, autoscalingv2.AverageValueMetricType,
			map[string]string{"value": "1Gi", "containerName": "foo"},
			autoscalingv2.MetricSpec{
				Type: autoscalingv2.ContainerResourceMetricSourceType,
				ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
					Name: corev1.ResourceMemory, Container: "foo",
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &gigabyte},
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := subject("cpu", test.build).Config(t, test.over)
			c.MetricType = test.kind
			source, err := test.build(c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := source.Specs(t.Context())
			if diff := cmp.Diff([]autoscalingv2.MetricSpec{test.want}, got); err != nil || diff != "" {
				t.Errorf("Specs() fails with %v and differs:\n%s", err, diff)
			}
		})
	}
}

func TestWrongParameters(t *testing.T) {
	for name, test := range map[string]struct {
		kind  autoscalingv2.MetricTargetType
		over  map[string]string
		fails string
	}{
		"no metric type":           {"", nil, "unknown metric type: , allowed values are 'Utilization' or 'AverageValue'"},
		"a total":                  {autoscalingv2.ValueMetricType, nil, "unknown metric type: Value, allowed values are 'Utilization' or 'AverageValue'"},
		"no value":                 {autoscalingv2.UtilizationMetricType, map[string]string{"value": ""}, "value"},
		"a share with a unit":      {autoscalingv2.UtilizationMetricType, map[string]string{"value": "50%"}, "parsing value: "},
		"a share past all numbers": {autoscalingv2.UtilizationMetricType, map[string]string{"value": "3000000000"}, "parsing value: "},
		"an amount of no unit":     {autoscalingv2.AverageValueMetricType, map[string]string{"value": "1Xi"}, "parsing value: "},
		"the setting of old":       {autoscalingv2.UtilizationMetricType, map[string]string{"type": "Utilization"}, "'type' setting is DEPRECATED"},
	} {
		t.Run(name, func(t *testing.T) {
			c := subject("cpu", NewCPU).Config(t, test.over)
			c.MetricType = test.kind
			if _, err := NewCPU(c); err == nil || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("New() = %v; want an error of %q", err, test.fails)
			}
		})
	}
}

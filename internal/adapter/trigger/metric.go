package trigger

import (
	"math"
	"strconv"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ObjectLabel is the label by which an HPA's external metric names the object it belongs to.
const ObjectLabel = "scaledobject.keda.sh/name"

// Quantity returns a value with three decimals; what is negative or no number counts as zero.
func Quantity(value float64) resource.Quantity {
	if math.IsNaN(value) || math.IsInf(value, 0) || value < 0 {
		return resource.MustParse("0")
	}
	return resource.MustParse(strconv.FormatFloat(value, 'f', 3, 64))
}

func spec(name string, kind autoscalingv2.MetricTargetType, target resource.Quantity) autoscalingv2.MetricSpec {
	t := autoscalingv2.MetricTarget{Type: kind}
	if kind == autoscalingv2.AverageValueMetricType {
		t.AverageValue = &target
	} else {
		t.Value = &target
	}
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name},
			Target: t,
		},
	}
}

// Labelled gives external metrics the selector by which the metrics API finds their object.
func Labelled(specs []autoscalingv2.MetricSpec, object string) []autoscalingv2.MetricSpec {
	out := make([]autoscalingv2.MetricSpec, len(specs))
	for i := range specs {
		out[i] = *specs[i].DeepCopy()
		if out[i].External != nil {
			out[i].External.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{ObjectLabel: object}}
		}
	}
	return out
}

var unfit = strings.NewReplacer("/", "-", ".", "-", ":", "-", "%", "-", "(", "-", ")", "-")

// normal replaces what a metric's name cannot have.
func normal(name string) string { return unfit.Replace(name) }

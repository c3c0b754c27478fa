package horizontal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Metrics are what a HorizontalPodAutoscaler scales by, and what the ScaledObject's status calls them.
type Metrics struct {
	// Specs are in the order of the object.
	Specs []autoscalingv2.MetricSpec
	// External and Resource are the names of all triggers' metrics.
	External, Resource []string
	// Composite is the name of the formula's metric; empty without one.
	Composite string
}

var (
	errUtilization = errors.New("error metric target type is Utilization, but it needs to be AverageValue or Value for external metrics")
	errNoSpecs     = errors.New("no metric specs returned from scalers")
)

// Assemble makes the metrics of a ScaledObject out of its triggers' specs, which stay as they are.
func Assemble(so *kedav1alpha1.ScaledObject, specs []autoscalingv2.MetricSpec) (Metrics, error) {
	if len(specs) == 0 {
		return Metrics{}, fmt.Errorf("%w for ScaledObject %s/%s", errNoSpecs, so.Namespace, so.Name)
	}
	var out Metrics
	for i := range specs {
		spec := specs[i].DeepCopy()
		if spec.Resource != nil {
			out.Resource = append(out.Resource, string(spec.Resource.Name))
		}
		if spec.External != nil {
			name := spec.External.Metric.Name
			if slices.Contains(out.External, name) {
				return Metrics{}, fmt.Errorf("metricName %s defined multiple times in ScaledObject %s", name, so.Name)
			}
			out.External = append(out.External, name)
			spec.External.Metric.Selector = selector(so)
		}
		out.Specs = append(out.Specs, *spec)
	}
	slices.SortStableFunc(out.Specs, func(a, b autoscalingv2.MetricSpec) int { return cmp.Compare(a.Type, b.Type) })
	if !so.IsUsingModifiers() {
		return out, nil
	}
	return out, compose(so, &out)
}

// selector is how a metric's request tells whose it is.
func selector(so *kedav1alpha1.ScaledObject) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{kedav1alpha1.ScaledObjectOwnerAnnotation: so.Name}}
}

// compose puts the formula's metric in the place of all but the pods' resources. A target that is no
// number above 0 makes none; admission refuses it.
func compose(so *kedav1alpha1.ScaledObject, m *Metrics) error {
	modifiers := so.Spec.Advanced.ScalingModifiers
	target := autoscalingv2.MetricTarget{Type: cmp.Or(modifiers.MetricType, autoscalingv2.AverageValueMetricType)}
	if target.Type == autoscalingv2.UtilizationMetricType {
		return errUtilization
	}
	value, _ := strconv.ParseFloat(modifiers.Target, 64) // 0 with an error
	if value <= 0 {
		return nil
	}
	quantity := resource.NewMilliQuantity(int64(value*1000), resource.DecimalSI)
	if target.Type == autoscalingv2.ValueMetricType {
		target.Value = quantity
	} else {
		target.AverageValue = quantity
	}
	m.Composite = kedav1alpha1.CompositeMetricName
	m.Specs = slices.DeleteFunc(m.Specs, func(s autoscalingv2.MetricSpec) bool { return s.Resource == nil })
	m.Specs = append(m.Specs, autoscalingv2.MetricSpec{
		Type: autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: m.Composite, Selector: selector(so)},
			Target: target,
		},
	})
	return nil
}

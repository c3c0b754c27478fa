package metricsapi

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/metrics/pkg/apis/metrics"
)

var columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of what was measured"},
	{Name: "cpu", Type: "string", Description: "CPU used, in cores"},
	{Name: "memory", Type: "string", Description: "Memory in use"},
	{Name: "window", Type: "string", Description: "What the CPU is averaged over"},
}

// ConvertToTable prints pods' use for `kubectl get`.
func (*podStorage) ConvertToTable(_ context.Context, o, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: columns}
	switch o := o.(type) {
	case *metrics.PodMetrics:
		t.Rows = append(t.Rows, podRow(o))
	case *metrics.PodMetricsList:
		for i := range o.Items {
			t.Rows = append(t.Rows, podRow(&o.Items[i]))
		}
	default:
		return nil, fmt.Errorf("printing %T: not pod metrics", o)
	}
	return t, nil
}

// ConvertToTable prints nodes' use for `kubectl get`.
func (*nodeStorage) ConvertToTable(_ context.Context, o, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: columns}
	switch o := o.(type) {
	case *metrics.NodeMetrics:
		t.Rows = append(t.Rows, row(o.Name, o.Usage, o.Window, o))
	case *metrics.NodeMetricsList:
		for i := range o.Items {
			n := &o.Items[i]
			t.Rows = append(t.Rows, row(n.Name, n.Usage, n.Window, n))
		}
	default:
		return nil, fmt.Errorf("printing %T: not node metrics", o)
	}
	return t, nil
}

func podRow(p *metrics.PodMetrics) metav1.TableRow {
	total := corev1.ResourceList{}
	for _, c := range p.Containers {
		for name, quantity := range c.Usage {
			sum := total[name]
			sum.Add(quantity)
			total[name] = sum
		}
	}
	return row(p.Name, total, p.Window, p)
}

func row(name string, used corev1.ResourceList, window metav1.Duration, o runtime.Object) metav1.TableRow {
	return metav1.TableRow{
		Cells:  []any{name, used.Cpu().String(), used.Memory().String(), window.Duration.String()},
		Object: runtime.RawExtension{Object: o},
	}
}

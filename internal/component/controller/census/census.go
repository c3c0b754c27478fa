// Package census tells how many of KEDA's objects and triggers there are, by KEDA's names, from the
// controllers' memory: who scrapes sees what there is at that moment.
package census

import (
	"context"
	"time"

	eventingv1alpha1 "github.com/kedacore/keda/v2/apis/eventing/v1alpha1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// patience bounds how long a scrape waits for a memory that is not filled yet.
const patience = time.Second

// everywhere is the namespace that objects without one are counted in.
const everywhere = "default"

// The names are KEDA's, whatever Prometheus would have of them.
var (
	descTriggers = desc("keda_trigger_registered_total", "Total number of triggers per trigger type registered.", "type")
	descObjects  = desc("keda_resource_registered_total", "Total number of KEDA custom resources per namespace for each custom resource type (CRD) registered.", "type", "namespace")
	descPaused   = desc("keda_scaled_object_paused", "Indicates whether a ScaledObject is paused (1), or not (0).", "namespace", "scaledObject")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Census counts the objects in a memory.
type Census struct {
	memory client.Reader
	limit  func() (context.Context, context.CancelFunc)
}

var _ prometheus.Collector = (*Census)(nil)

// New counts what a memory has, as long as ctx lasts.
func New(ctx context.Context, memory client.Reader) *Census {
	return &Census{memory, func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, patience) }}
}

// Describe implements prometheus.Collector.
func (*Census) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTriggers, descObjects, descPaused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What cannot be read is not told.
func (c *Census) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := c.limit()
	defer cancel()
	n := numbers{objects: map[object]int{}, triggers: map[string]int{}}
	n.scaled(ctx, c.memory, ch)
	n.others(ctx, c.memory)
	for kind, count := range n.triggers {
		ch <- prometheus.MustNewConstMetric(descTriggers, prometheus.GaugeValue, float64(count), kind)
	}
	for of, count := range n.objects {
		ch <- prometheus.MustNewConstMetric(descObjects, prometheus.GaugeValue, float64(count), of.kind, of.namespace)
	}
}

// object is one kind in one namespace.
type object struct{ kind, namespace string }

type numbers struct {
	objects  map[object]int
	triggers map[string]int
}

func (n *numbers) add(kind, namespace string, triggers []kedav1alpha1.ScaleTriggers) {
	if namespace == "" {
		namespace = everywhere
	}
	n.objects[object{kind, namespace}]++
	for i := range triggers {
		n.triggers[triggers[i].Type]++
	}
}

// scaled counts what has triggers.
func (n *numbers) scaled(ctx context.Context, memory client.Reader, ch chan<- prometheus.Metric) {
	var objects kedav1alpha1.ScaledObjectList
	if err := memory.List(ctx, &objects, client.UnsafeDisableDeepCopy); err == nil {
		for i := range objects.Items {
			so := &objects.Items[i]
			n.add("scaled_object", so.Namespace, so.Spec.Triggers)
			paused := 0.0
			for _, condition := range so.Status.Conditions {
				if condition.Type == kedav1alpha1.ConditionPaused && condition.Status == metav1.ConditionTrue {
					paused = 1
				}
			}
			ch <- prometheus.MustNewConstMetric(descPaused, prometheus.GaugeValue, paused, so.Namespace, so.Name)
		}
	}
	var jobs kedav1alpha1.ScaledJobList
	if err := memory.List(ctx, &jobs, client.UnsafeDisableDeepCopy); err == nil {
		for i := range jobs.Items {
			n.add("scaled_job", jobs.Items[i].Namespace, jobs.Items[i].Spec.Triggers)
		}
	}
}

// others counts what has none.
func (n *numbers) others(ctx context.Context, memory client.Reader) {
	for _, of := range []struct {
		kind string
		list client.ObjectList
	}{
		{"trigger_authentication", &kedav1alpha1.TriggerAuthenticationList{}},
		{"cluster_trigger_authentication", &kedav1alpha1.ClusterTriggerAuthenticationList{}},
		{"cloudevent_source", &eventingv1alpha1.CloudEventSourceList{}},
		{"cloudevent_source", &eventingv1alpha1.ClusterCloudEventSourceList{}},
	} {
		if memory.List(ctx, of.list, client.UnsafeDisableDeepCopy) != nil {
			continue
		}
		_ = meta.EachListItem(of.list, func(item runtime.Object) error { // fails with what this does only
			if o, ok := item.(client.Object); ok {
				n.add(of.kind, o.GetNamespace(), nil)
			}
			return nil
		})
	}
}

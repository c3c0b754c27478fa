package metricsapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/metrics/pkg/apis/metrics"
)

// Both resources can be read, listed and printed; there is nothing to write or watch.
var (
	_ rest.Getter = (*podStorage)(nil)
	_ rest.Lister = (*podStorage)(nil)
	_ rest.Getter = (*nodeStorage)(nil)
	_ rest.Lister = (*nodeStorage)(nil)
)

type storage struct {
	meter    *Meter
	objects  Objects
	resource schema.GroupResource
}

func (*storage) Destroy() {}

func (s *storage) read(ctx context.Context) (Report, error) {
	r, err := s.meter.Report(ctx)
	if err != nil {
		return r, apierrors.NewServiceUnavailable(err.Error())
	}
	return r, nil
}

// selectors are what a list request asks for; everything where it asks for nothing.
func selectors(o *internalversion.ListOptions) (labels.Selector, fields.Selector) {
	l, f := labels.Everything(), fields.Everything()
	if o != nil && o.LabelSelector != nil {
		l = o.LabelSelector
	}
	if o != nil && o.FieldSelector != nil {
		f = o.FieldSelector
	}
	return l, f
}

func named(name, namespace string) fields.Set {
	return fields.Set{"metadata.name": name, "metadata.namespace": namespace}
}

type podStorage struct{ storage }

func (*podStorage) New() runtime.Object     { return &metrics.PodMetrics{} }
func (*podStorage) NewList() runtime.Object { return &metrics.PodMetricsList{} }
func (*podStorage) Kind() string            { return "PodMetrics" }
func (*podStorage) NamespaceScoped() bool   { return true }
func (*podStorage) GetSingularName() string { return "pod" }

// Get answers for one pod; one that has not been measured yet is not found.
func (s *podStorage) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	found, err := s.find(ctx, labels.Everything(), fields.SelectorFromSet(fields.Set{"metadata.name": name}))
	if err != nil {
		return nil, err
	}
	if len(found.Items) == 0 {
		return nil, apierrors.NewNotFound(s.resource, genericapirequest.NamespaceValue(ctx)+"/"+name)
	}
	return &found.Items[0], nil
}

// List answers for the namespace's pods that run and have been measured.
func (s *podStorage) List(ctx context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	l, f := selectors(o)
	return s.find(ctx, l, f)
}

func (s *podStorage) find(ctx context.Context, l labels.Selector, f fields.Selector) (*metrics.PodMetricsList, error) {
	pods, err := s.objects.Pods(genericapirequest.NamespaceValue(ctx), l)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("listing pods: %w", err))
	}
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return p.Status.Phase != corev1.PodRunning || !f.Matches(named(p.Name, p.Namespace))
	})
	out := &metrics.PodMetricsList{Items: []metrics.PodMetrics{}}
	if len(pods) == 0 {
		return out, nil
	}
	report, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		if m, ok := podMetrics(p, report.Pods[p.UID]); ok {
			out.Items = append(out.Items, m)
		}
	}
	slices.SortFunc(out.Items, func(a, b metrics.PodMetrics) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return out, nil
}

// podMetrics needs a figure for every running container: with some missing, an autoscaler would take
// the pod for idler than it is.
func podMetrics(p *corev1.Pod, usage PodUsage) (metrics.PodMetrics, bool) {
	m := metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels, CreationTimestamp: metav1.Now()}}
	for _, status := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if status.State.Running == nil {
			continue
		}
		u, ok := usage[status.Name]
		if !ok {
			return m, false
		}
		m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: status.Name, Usage: u.list()})
		if m.Timestamp.IsZero() || u.Time.Before(m.Timestamp.Time) {
			m.Timestamp = metav1.NewTime(u.Time)
		}
		if m.Window.Duration == 0 || u.Window < m.Window.Duration {
			m.Window.Duration = u.Window.Round(time.Millisecond)
		}
	}
	return m, len(m.Containers) > 0
}

func (u Usage) list() corev1.ResourceList {
	return corev1.ResourceList{
		"cpu":    *resource.NewScaledQuantity(int64(u.CPUNanoCores), resource.Nano),
		"memory": *resource.NewQuantity(int64(u.MemoryBytes), resource.BinarySI),
	}
}

type nodeStorage struct{ storage }

func (*nodeStorage) New() runtime.Object     { return &metrics.NodeMetrics{} }
func (*nodeStorage) NewList() runtime.Object { return &metrics.NodeMetricsList{} }
func (*nodeStorage) Kind() string            { return "NodeMetrics" }
func (*nodeStorage) NamespaceScoped() bool   { return false }
func (*nodeStorage) GetSingularName() string { return "node" }

// Get answers for one node.
func (s *nodeStorage) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	found, err := s.find(ctx, labels.Everything(), fields.SelectorFromSet(fields.Set{"metadata.name": name}))
	if err != nil {
		return nil, err
	}
	if len(found.Items) == 0 {
		return nil, apierrors.NewNotFound(s.resource, name)
	}
	return &found.Items[0], nil
}

// List answers for all nodes that have been measured.
func (s *nodeStorage) List(ctx context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	l, f := selectors(o)
	return s.find(ctx, l, f)
}

func (s *nodeStorage) find(ctx context.Context, l labels.Selector, f fields.Selector) (*metrics.NodeMetricsList, error) {
	nodes, err := s.objects.Nodes(l)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("listing nodes: %w", err))
	}
	report, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &metrics.NodeMetricsList{Items: []metrics.NodeMetrics{}}
	for _, n := range nodes {
		u, ok := report.Nodes[n.Name]
		if !ok || !f.Matches(named(n.Name, "")) {
			continue
		}
		out.Items = append(out.Items, metrics.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, CreationTimestamp: metav1.Now()},
			Timestamp:  metav1.NewTime(u.Time),
			Window:     metav1.Duration{Duration: u.Window.Round(time.Millisecond)},
			Usage:      u.list(),
		})
	}
	slices.SortFunc(out.Items, func(a, b metrics.NodeMetrics) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

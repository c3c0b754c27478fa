package custom

import (
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/custom_metrics/v1beta1"
	"k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// query is what a request asks for; an empty name is every object the selector takes.
type query struct {
	namespace, resource, name, metric string
	selector                          labels.Selector
}

// value is one object's figure.
type value struct {
	object corev1.ObjectReference
	Reading
}

// values finds the figures asked for.
func (s server) values(q query) ([]value, error) {
	pods, err := s.Objects.Pods(q.namespace, q.selector)
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	switch q.resource {
	case ofPods:
		return s.ofPods(q, pods)
	case ofRevisions:
		return s.ofRevisions(q, pods), nil
	default:
		return nil, nil
	}
}

// ofPods gives each ready pod its share of its revision's figure.
func (s server) ofPods(q query, pods []*corev1.Pod) ([]value, error) {
	var out []value
	for rev, members := range byRevision(pods) {
		all := members
		if !q.selector.Empty() {
			others, err := s.Objects.Pods(q.namespace, labels.SelectorFromSet(labels.Set{serving.RevisionLabelKey: rev.Name}))
			if err != nil {
				return nil, fmt.Errorf("listing pods of revision %s: %w", rev, err)
			}
			all = byRevision(others)[rev]
		}
		reading, ok := s.Gauge.Read(rev, q.metric)
		if !ok || len(all) == 0 {
			continue
		}
		reading.Value /= float64(len(all))
		for _, pod := range members {
			if q.name != "" && q.name != pod.Name {
				continue
			}
			out = append(out, value{corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}, reading})
		}
	}
	return sorted(out), nil
}

// ofRevisions gives the whole figure of a named revision, or of all that have a ready pod.
func (s server) ofRevisions(q query, pods []*corev1.Pod) []value {
	var names []types.NamespacedName
	if q.name != "" {
		names = append(names, types.NamespacedName{Namespace: q.namespace, Name: q.name})
	} else {
		for rev := range byRevision(pods) {
			names = append(names, rev)
		}
	}
	var out []value
	for _, rev := range names {
		if reading, ok := s.Gauge.Read(rev, q.metric); ok {
			out = append(out, value{corev1.ObjectReference{
				APIVersion: servingv1.SchemeGroupVersion.String(), Kind: "Revision", Namespace: rev.Namespace, Name: rev.Name,
			}, reading})
		}
	}
	return sorted(out)
}

// byRevision sorts the ready pods by what they are instances of.
func byRevision(pods []*corev1.Pod) map[types.NamespacedName][]*corev1.Pod {
	out := map[types.NamespacedName][]*corev1.Pod{}
	for _, pod := range pods {
		if name := pod.Labels[serving.RevisionLabelKey]; name != "" && ready(pod) {
			rev := types.NamespacedName{Namespace: pod.Namespace, Name: name}
			out[rev] = append(out[rev], pod)
		}
	}
	return out
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// list writes values down in the words of a version.
func list(version, metric string, values []value) any {
	now := metav1.NewTime(time.Now())
	meta := metav1.TypeMeta{Kind: "MetricValueList", APIVersion: Group + "/" + version}
	item := metav1.TypeMeta{Kind: "MetricValue", APIVersion: Group + "/" + version}
	if version == v1beta1.SchemeGroupVersion.Version {
		out := v1beta1.MetricValueList{TypeMeta: meta, Items: []v1beta1.MetricValue{}}
		for _, v := range values {
			seconds := int64(v.Window.Seconds())
			out.Items = append(out.Items, v1beta1.MetricValue{
				TypeMeta: item, DescribedObject: v.object, MetricName: metric, Timestamp: now, WindowSeconds: &seconds, Value: quantity(v.Value),
			})
		}
		return out
	}
	out := v1beta2.MetricValueList{TypeMeta: meta, Items: []v1beta2.MetricValue{}}
	for _, v := range values {
		seconds := int64(v.Window.Seconds())
		out.Items = append(out.Items, v1beta2.MetricValue{
			TypeMeta: item, DescribedObject: v.object, Metric: v1beta2.MetricIdentifier{Name: metric}, Timestamp: now, WindowSeconds: &seconds, Value: quantity(v.Value),
		})
	}
	return out
}

func quantity(f float64) resource.Quantity {
	return *resource.NewMilliQuantity(int64(math.Round(f*1000)), resource.DecimalSI)
}

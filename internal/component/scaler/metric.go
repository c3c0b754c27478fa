package scaler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/external_metrics"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// fresh is how old an observation may be to answer for the present.
const fresh = 3 * time.Second

// Metric answers what a HorizontalPodAutoscaler asks: the value of an object's metric, read now unless
// it was read a moment ago or the trigger says to use cached metrics.
func (e *Engine) Metric(ctx context.Context, namespace, name, metric string) ([]external_metrics.ExternalMetricValue, error) {
	o := e.find(types.NamespacedName{Namespace: namespace, Name: name})
	if o == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: kedav1alpha1.SchemeGroupVersion.Group, Resource: "scaledobjects"}, name)
	}
	if !o.recent(metric) {
		o.lane.fresh(ctx)
	}
	return o.value(ctx, metric)
}

// recent tells whether the last observation answers for a metric. Autoscalers write names in lower case.
func (o *object) recent(metric string) bool {
	o.mu.Lock()
	last := o.last
	o.mu.Unlock()
	for i := range last.triggers {
		a := &last.triggers[i]
		if !slices.ContainsFunc(a.specs, func(s autoscalingv2.MetricSpec) bool {
			return s.External != nil && (strings.EqualFold(s.External.Metric.Name, metric) || metric == kedav1alpha1.CompositeMetricName)
		}) {
			continue
		}
		if a.pending() || !a.spec.UseCachedMetrics && time.Since(a.began) >= fresh {
			return false
		}
	}
	return len(last.triggers) > 0
}

// value is what the last observation says of a metric, or the value that replicas were just added for.
func (o *object) value(ctx context.Context, metric string) ([]external_metrics.ExternalMetricValue, error) {
	so, seen := o.present(), o.lane.observe()
	current := int32(1)
	if so.Spec.Fallback != nil && so.Status.ScaleTargetGVKR != nil {
		if n, err := o.engine.config.Targets.Replicas(ctx, targetOf(so)); err == nil {
			current = n
		}
	}
	r := o.weigh(so, &seen, current)
	if r.err != nil {
		return nil, r.err
	}
	for _, m := range r.metrics {
		if !strings.EqualFold(m.Name, metric) {
			continue
		}
		o.mu.Lock()
		high := o.peaks[m.Name]
		o.mu.Unlock()
		if time.Now().Before(high.until) {
			m.Value = max(m.Value, high.value)
		}
		return []external_metrics.ExternalMetricValue{{
			MetricName: metric, Value: trigger.Quantity(m.Value), Timestamp: metav1.Now(),
		}}, nil
	}
	if r.failed {
		return nil, fmt.Errorf("metric:%s encountered error", metric)
	}
	return nil, fmt.Errorf("no matching metrics found for %s", metric)
}

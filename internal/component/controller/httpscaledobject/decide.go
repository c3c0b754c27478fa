package httpscaledobject

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	httpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"ebb.dev/ebb/internal/component/controller"
)

// Annotations that say what becomes of the ScaledObject.
const (
	annotationSkip   = "httpscaledobject.keda.sh/skip-scaledobject-creation"
	annotationOrphan = "httpscaledobject.keda.sh/orphan-scaledobject"
)

// What ScaledObjects say that are made here.
const (
	pollingInterval = 15
	triggerType     = "external-push"
	scalerAddress   = "keda-add-ons-http-external-scaler.keda:9090"
	defaultTarget   = 100
)

var errBothMetrics = errors.New(".spec.scalingMetric.concurrency and .spec.scalingMetric.rate are mutually exclusive")

// routeOf is an HTTPScaledObject as the InterceptorRoute that does the same.
func routeOf(o *httpv1alpha1.HTTPScaledObject) *httpv1beta1.InterceptorRoute {
	to := &o.Spec.ScaleTargetRef
	rule := httpv1beta1.RoutingRule{Hosts: o.Spec.Hosts}
	for _, prefix := range o.Spec.PathPrefixes {
		rule.Paths = append(rule.Paths, httpv1beta1.PathMatch{Value: prefix})
	}
	for _, h := range o.Spec.Headers {
		rule.Headers = append(rule.Headers, httpv1beta1.HeaderMatch{Name: h.Name, Value: h.Value})
	}
	route := &httpv1beta1.InterceptorRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, CreationTimestamp: o.CreationTimestamp},
		Spec: httpv1beta1.InterceptorRouteSpec{
			Target: httpv1beta1.TargetRef{Service: to.Service, Port: to.Port, PortName: to.PortName},
			Rules:  []httpv1beta1.RoutingRule{rule}, ScalingMetric: metricOf(&o.Spec),
		},
	}
	times := &route.Spec.Timeouts
	if t := o.Spec.Timeouts; t != nil {
		if t.ConditionWait.Duration > 0 {
			times.Readiness = &t.ConditionWait
		}
		if t.ResponseHeader.Duration > 0 {
			times.ResponseHeader = &t.ResponseHeader
		}
	}
	if side := o.Spec.ColdStartTimeoutFailoverRef; side != nil {
		route.Spec.ColdStart = &httpv1beta1.ColdStartSpec{Fallback: &httpv1beta1.ColdStartFallback{
			Service: &httpv1beta1.ServiceRef{Name: side.Service, Port: side.Port, PortName: side.PortName},
		}}
		if side.TimeoutSeconds > 0 {
			times.Readiness = &metav1.Duration{Duration: time.Duration(side.TimeoutSeconds) * time.Second}
		}
	}
	return route
}

// metricOf is what is counted: the rate goes before concurrency, which is the default.
func metricOf(spec *httpv1alpha1.HTTPScaledObjectSpec) httpv1beta1.ScalingMetricSpec {
	target := int32(defaultTarget)
	if spec.TargetPendingRequests != nil {
		target = *spec.TargetPendingRequests
	}
	if m := spec.ScalingMetric; m != nil {
		if m.Rate != nil {
			return httpv1beta1.ScalingMetricSpec{RequestRate: &httpv1beta1.RequestRateTargetSpec{
				TargetValue: int32(m.Rate.TargetValue), Window: m.Rate.Window, Granularity: m.Rate.Granularity,
			}}
		}
		if m.Concurrency != nil {
			target = int32(m.Concurrency.TargetValue)
		}
	}
	return httpv1beta1.ScalingMetricSpec{Concurrency: &httpv1beta1.ConcurrencyTargetSpec{TargetValue: target}}
}

// scaledObject is the ScaledObject that goes with an HTTPScaledObject.
func scaledObject(o *httpv1alpha1.HTTPScaledObject) *kedav1alpha1.ScaledObject {
	annotations := maps.Clone(o.Annotations)
	delete(annotations, corev1.LastAppliedConfigAnnotation) // which is of the other kind
	out := &kedav1alpha1.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, Labels: maps.Clone(o.Labels), Annotations: annotations},
		Spec: kedav1alpha1.ScaledObjectSpec{
			ScaleTargetRef: &kedav1alpha1.ScaleTarget{
				APIVersion: o.Spec.ScaleTargetRef.APIVersion, Kind: o.Spec.ScaleTargetRef.Kind, Name: o.Spec.ScaleTargetRef.Name,
			},
			PollingInterval: new(int32(pollingInterval)), CooldownPeriod: o.Spec.CooldownPeriod, InitialCooldownPeriod: o.Spec.InitialCooldownPeriod,
			Advanced: &kedav1alpha1.AdvancedConfig{RestoreToOriginalReplicaCount: true},
			Triggers: []kedav1alpha1.ScaleTriggers{{
				Type: triggerType, Metadata: map[string]string{"scalerAddress": scalerAddress, "httpScaledObject": o.Name},
			}},
		},
	}
	if r := o.Spec.Replicas; r != nil {
		out.Spec.MinReplicaCount, out.Spec.MaxReplicaCount = r.Min, r.Max
	}
	return out
}

// scale makes, changes, lets go of or deletes the ScaledObject.
func (r *Reconciler) scale(ctx context.Context, s *state) error {
	o := s.object
	switch m := o.Spec.ScalingMetric; {
	case m != nil && m.Concurrency != nil && m.Rate != nil:
		return errBothMetrics
	case o.Annotations[annotationOrphan] == "true":
		if s.scaled == nil || !owns(o, s.scaled) {
			return nil
		}
		next := s.scaled.DeepCopy()
		if err := controllerutil.RemoveOwnerReference(o, next, r.client.Scheme()); err != nil {
			return fmt.Errorf("letting go of scaled object %s/%s: %w", o.Namespace, o.Name, err)
		}
		return r.client.Update(ctx, next)
	case o.Annotations[annotationSkip] == "true":
		if s.scaled == nil || !owns(o, s.scaled) {
			return nil
		}
		return client.IgnoreNotFound(r.client.Delete(ctx, s.scaled))
	}
	return r.write(ctx, s)
}

// write makes the ScaledObject as it is to be.
func (r *Reconciler) write(ctx context.Context, s *state) error {
	o := s.object
	want := scaledObject(o)
	if s.scaled == nil {
		if err := controllerutil.SetControllerReference(o, want, r.client.Scheme()); err != nil {
			return err
		}
		err := r.client.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			return nil // its event brings it
		}
		return err
	}
	next := s.scaled.DeepCopy()
	overlay(next, want)
	if err := controllerutil.SetControllerReference(o, next, r.client.Scheme()); err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(next, s.scaled) {
		return nil
	}
	return r.client.Update(ctx, next)
}

// overlay puts what is wanted over what others may have written: what is not said stays.
func overlay(on, want *kedav1alpha1.ScaledObject) {
	if on.Labels == nil {
		on.Labels = map[string]string{}
	}
	if on.Annotations == nil {
		on.Annotations = map[string]string{}
	}
	maps.Copy(on.Labels, want.Labels)
	maps.Copy(on.Annotations, want.Annotations)
	spec := &on.Spec
	spec.ScaleTargetRef = overTarget(spec.ScaleTargetRef, want.Spec.ScaleTargetRef)
	spec.PollingInterval, spec.Triggers = want.Spec.PollingInterval, want.Spec.Triggers
	for _, field := range []struct {
		on   **int32
		want *int32
	}{
		{&spec.CooldownPeriod, want.Spec.CooldownPeriod},
		{&spec.InitialCooldownPeriod, want.Spec.InitialCooldownPeriod},
		{&spec.MinReplicaCount, want.Spec.MinReplicaCount},
		{&spec.MaxReplicaCount, want.Spec.MaxReplicaCount},
	} {
		if field.want != nil {
			*field.on = field.want
		}
	}
	if spec.Advanced == nil {
		spec.Advanced = &kedav1alpha1.AdvancedConfig{}
	}
	spec.Advanced.RestoreToOriginalReplicaCount = true
}

func overTarget(on, want *kedav1alpha1.ScaleTarget) *kedav1alpha1.ScaleTarget {
	if on == nil {
		return want
	}
	out := *on
	if out.Name = want.Name; want.APIVersion != "" {
		out.APIVersion = want.APIVersion
	}
	if want.Kind != "" {
		out.Kind = want.Kind
	}
	return &out
}

func owns(o *httpv1alpha1.HTTPScaledObject, so *kedav1alpha1.ScaledObject) bool {
	for _, ref := range so.OwnerReferences {
		if ref.Kind == "HTTPScaledObject" && ref.Name == o.Name {
			return true
		}
	}
	return false
}

// decide returns the object with the status it is to have; failure is what kept its ScaledObject from
// being as it should.
func decide(s *state, failure error) *httpv1alpha1.HTTPScaledObject {
	after := s.object.DeepCopy()
	to := &after.Spec.ScaleTargetRef
	after.Status.TargetWorkload = fmt.Sprintf("%s/%s/%s", to.APIVersion, to.Kind, to.Name)
	after.Status.TargetService = net.JoinHostPort(to.Service, strconv.Itoa(int(to.Port)))
	condition := metav1.Condition{
		Type: httpv1alpha1.ConditionTypeReady, Status: metav1.ConditionTrue, ObservedGeneration: after.Generation,
		Reason: httpv1alpha1.ConditionReasonReconciled, Message: "ScaledObject created and configured",
	}
	switch {
	case failure != nil && (controller.Settled(failure) != nil || errors.Is(failure, errBothMetrics)):
		condition.Status, condition.Reason = metav1.ConditionFalse, httpv1alpha1.ConditionReasonCreateError
		condition.Message = fmt.Sprintf("Failed to create scaled objects: %v", failure)
	case s.served != nil:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, controller.NotServed, s.served.Error()
	}
	meta.SetStatusCondition(&after.Status.Conditions, condition)
	return after
}

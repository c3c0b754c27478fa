package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/render/scaled"
)

// longestLabel bounds names that become the value of a label.
const longestLabel = 63

// Types of triggers that the HorizontalPodAutoscaler reads by itself.
const (
	cpu    = "cpu"
	memory = "memory"
)

// scaledObjects judges ScaledObjects.
type scaledObjects struct {
	neighbours *Neighbours
	client     kubernetes.Interface
	triggers   triggers
}

// check returns what is worth a warning, or why the object is refused.
func (s scaledObjects) check(ctx context.Context, so *kedav1alpha1.ScaledObject, dryRun bool) ([]string, error) {
	for _, check := range []func(*kedav1alpha1.ScaledObject) error{checkName, checkReplicas, checkFallback, checkFormula} {
		if err := check(so); err != nil {
			return nil, err
		}
	}
	if err := s.neighbours.check(ctx, so); err != nil {
		return nil, err
	}
	if !dryRun {
		if err := s.checkRequests(ctx, so); err != nil {
			return nil, err
		}
	}
	warnings, err := s.triggers.check(so.Spec.Triggers)
	if err != nil {
		return nil, err
	}
	return append(idleFields(so), warnings...), nil
}

// checkAnnotation judges the triggers that a Service asks for by annotation as it would their ScaledObject;
// those it had before are not judged anew.
func (s scaledObjects) checkAnnotation(ctx context.Context, r review) (warnings []string, err error) {
	now, ok := r.now.(*servingv1.Service)
	if !ok || now.DeletionTimestamp != nil {
		return nil, nil
	}
	if old, ok := r.old.(*servingv1.Service); ok && old.Annotations[scaled.Annotation] == now.Annotations[scaled.Annotation] {
		return nil, nil
	}
	so, err := scaled.Object(now)
	if so != nil && err == nil {
		warnings, err = s.check(ctx, so, apis.IsDryRun(r.ctx))
	}
	at := func(text string) string {
		return "metadata.annotations[" + scaled.Annotation + "]: " + strings.ReplaceAll(text, "spec.triggers[", "triggers[")
	}
	for i := range warnings {
		warnings[i] = at(warnings[i])
	}
	if err != nil {
		return warnings, fmt.Errorf("%s", at(err.Error()))
	}
	return warnings, nil
}

func checkReplicas(so *kedav1alpha1.ScaledObject) error {
	return refused(reasonReplicas, kedav1alpha1.CheckReplicaCountBoundsAreValid(so))
}

func checkFallback(so *kedav1alpha1.ScaledObject) error {
	return refused(reasonFallback, kedav1alpha1.CheckFallbackValid(so))
}

func checkName(so *kedav1alpha1.ScaledObject) error {
	if n := len(so.Name); n > longestLabel {
		return refused(reasonName, fmt.Errorf("scaledobject name %q is %d characters long; must be no more than %d characters because it is used as the %q label value", so.Name, n, longestLabel, kedav1alpha1.ScaledObjectOwnerAnnotation))
	}
	if name := hpaName(so); len(name) > longestLabel {
		return refused(reasonHPAName, fmt.Errorf("HPA name %q derived from scaledobject is %d characters long; must be no more than %d characters; set spec.advanced.horizontalPodAutoscalerConfig.name to a shorter name or shorten the scaledobject name", name, len(name), longestLabel))
	}
	return nil
}

func checkFormula(so *kedav1alpha1.ScaledObject) error {
	if so.IsUsingModifiers() {
		if _, err := kedav1alpha1.ValidateAndCompileScalingModifiers(so.DeepCopy()); err != nil {
			return refused(reasonFormula, err)
		}
	}
	if so.FallbackScalingModifiers() && (!so.IsUsingModifiers() || so.Spec.Advanced.ScalingModifiers.Formula == "") {
		return refused(reasonNoFormula, errors.New("scalingModifiers fallback behavior requires scalingModifiers.formula to be defined"))
	}
	return nil
}

// idleFields warns of what has no effect on how an object scales.
func idleFields(so *kedav1alpha1.ScaledObject) []string {
	var out []string
	if so.Spec.PollingInterval != nil && so.UsesHPAObservations() {
		out = append(out, "PollingInterval is configured but is not relevant for scaling. It only affects scaling when minReplicaCount = 0, idleReplicaCount is set, or useCachedMetrics is enabled, but it still controls how often KEDA refreshes the ScaledObject status conditions and events")
	}
	if so.Spec.CooldownPeriod != nil && so.Spec.IdleReplicaCount == nil && so.Spec.MinReplicaCount != nil && *so.Spec.MinReplicaCount > 0 {
		out = append(out, "CooldownPeriod is configured but is not relevant. CooldownPeriod is only relevant when minReplicaCount = 0 or idleReplicaCount is set")
	}
	return out
}

// checkRequests refuses a trigger on CPU or memory whose share cannot be told, since the target asks
// for none, and one that would have to wake a target that uses none.
func (s scaledObjects) checkRequests(ctx context.Context, so *kedav1alpha1.ScaledObject) error {
	var shares []*kedav1alpha1.ScaleTriggers
	for i := range so.Spec.Triggers {
		if t := &so.Spec.Triggers[i]; t.Type == cpu || t.Type == memory {
			shares = append(shares, t)
		}
	}
	if len(shares) == 0 {
		return nil
	}
	pod, err := s.pod(ctx, so)
	if err != nil || pod == nil {
		return err
	}
	for _, t := range shares {
		if err := s.checkRequest(ctx, so.Namespace, t, pod); err != nil {
			return err
		}
	}
	if len(shares) == len(so.Spec.Triggers) && (so.Spec.MinReplicaCount == nil || *so.Spec.MinReplicaCount == 0) {
		return refused(reasonScaleToZero, errors.New("scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case)"))
	}
	return nil
}

// pod reads the target's pods, nil for a target of another kind.
func (s scaledObjects) pod(ctx context.Context, so *kedav1alpha1.ScaledObject) (*corev1.PodSpec, error) {
	ref := so.Spec.ScaleTargetRef
	kind, err := s.neighbours.target(ref.APIVersion, ref.Kind)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "apps/v1.Deployment":
		d, err := s.client.AppsV1().Deployments(so.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return &d.Spec.Template.Spec, nil
	case "apps/v1.StatefulSet":
		set, err := s.client.AppsV1().StatefulSets(so.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return &set.Spec.Template.Spec, nil
	}
	return nil, nil
}

func (s scaledObjects) checkRequest(ctx context.Context, namespace string, t *kedav1alpha1.ScaleTriggers, pod *corev1.PodSpec) error {
	of, only := corev1.ResourceName(t.Type), t.Metadata["containerName"]
	if only == "" && pod.Resources != nil && asks(*pod.Resources, of) {
		return nil
	}
	for i := range pod.Containers {
		c := &pod.Containers[i]
		if only != "" && c.Name != only || asks(c.Resources, of) {
			continue
		}
		given, err := s.given(ctx, namespace, of)
		if err != nil {
			return err
		}
		if !given {
			return refused(reasonRequests, fmt.Errorf("the scaledobject has a %v trigger but the container %s doesn't have the %v request defined", of, c.Name, of))
		}
	}
	return nil
}

func asks(r corev1.ResourceRequirements, of corev1.ResourceName) bool {
	request, limit := r.Requests[of], r.Limits[of]
	return request.Sign() > 0 || limit.Sign() > 0
}

// given says whether the namespace gives a container that asks for nothing some of a resource.
func (s scaledObjects) given(ctx context.Context, namespace string, of corev1.ResourceName) (bool, error) {
	list, err := s.client.CoreV1().LimitRanges(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("listing limit ranges: %w", err)
	}
	for i := range list.Items {
		for _, limit := range list.Items[i].Spec.Limits {
			if limit.Type == corev1.LimitTypeContainer && asks(corev1.ResourceRequirements{Requests: limit.DefaultRequest, Limits: limit.Default}, of) {
				return true, nil
			}
		}
	}
	return false, nil
}

package admission

import (
	"context"
	"fmt"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"ebb.dev/ebb/internal/platform/kube"
)

// Fields by which neighbours are found.
const (
	byTarget = "spec.scaleTargetRef.name"
	byHPA    = "spec.hpaName"
)

// Neighbours are the objects beside a ScaledObject that must not want the same: ScaledObjects and
// HorizontalPodAutoscalers, found by an index and not by reading all.
type Neighbours struct {
	objects client.Reader
	mapper  meta.RESTMapper
}

// NewNeighbours finds them in a reader that has the Indexes.
func NewNeighbours(objects client.Reader, mapper meta.RESTMapper) *Neighbours {
	return &Neighbours{objects, mapper}
}

// An Index is a field by which a kind's objects can be listed.
type Index struct {
	Object client.Object
	Field  string
	Value  client.IndexerFunc
}

// Indexes are what Neighbours list by.
func Indexes() []Index {
	return []Index{
		{&kedav1alpha1.ScaledObject{}, byTarget, func(o client.Object) []string {
			return []string{o.(*kedav1alpha1.ScaledObject).Spec.ScaleTargetRef.Name}
		}},
		{&kedav1alpha1.ScaledObject{}, byHPA, func(o client.Object) []string {
			return []string{hpaName(o.(*kedav1alpha1.ScaledObject))}
		}},
		{&autoscalingv2.HorizontalPodAutoscaler{}, byTarget, func(o client.Object) []string {
			return []string{o.(*autoscalingv2.HorizontalPodAutoscaler).Spec.ScaleTargetRef.Name}
		}},
	}
}

// Watch follows neighbours in a memory of their own, which holds only what they are compared by. It
// is filled once run, which ends with its context; until then questions wait.
func Watch(ctx context.Context, c *rest.Config) (n *Neighbours, run func(context.Context) error, err error) {
	quiet := kube.Unlimited(c)
	http, err := rest.HTTPClientFor(quiet)
	if err != nil {
		return nil, nil, fmt.Errorf("making a client for admission: %w", err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(quiet, http)
	if err != nil {
		return nil, nil, fmt.Errorf("asking for the cluster's kinds: %w", err)
	}
	memory, err := cache.New(quiet, cache.Options{
		Scheme: kube.Scheme(), HTTPClient: http, Mapper: mapper,
		ByObject: map[client.Object]cache.ByObject{
			&kedav1alpha1.ScaledObject{}:             {Transform: slimScaledObject},
			&autoscalingv2.HorizontalPodAutoscaler{}: {Transform: slimHPA},
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("making the memory of admission: %w", err)
	}
	for _, index := range Indexes() {
		if err := memory.IndexField(ctx, index.Object, index.Field, index.Value); err != nil {
			return nil, nil, fmt.Errorf("indexing by %s: %w", index.Field, err)
		}
	}
	return NewNeighbours(memory, mapper), memory.Start, nil
}

// slimScaledObject keeps what others are compared with.
func slimScaledObject(o any) (any, error) {
	so, ok := o.(*kedav1alpha1.ScaledObject)
	if !ok {
		return o, nil
	}
	slim := &kedav1alpha1.ScaledObject{ObjectMeta: identity(so)}
	slim.Spec.ScaleTargetRef = so.Spec.ScaleTargetRef
	if a := so.Spec.Advanced; a != nil && a.HorizontalPodAutoscalerConfig != nil {
		slim.Spec.Advanced = &kedav1alpha1.AdvancedConfig{
			HorizontalPodAutoscalerConfig: &kedav1alpha1.HorizontalPodAutoscalerConfig{Name: a.HorizontalPodAutoscalerConfig.Name},
		}
	}
	return slim, nil
}

func slimHPA(o any) (any, error) {
	hpa, ok := o.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return o, nil
	}
	slim := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: identity(hpa)}
	slim.OwnerReferences = hpa.OwnerReferences
	if value, ok := hpa.Annotations[kedav1alpha1.ValidationsHpaOwnershipAnnotation]; ok {
		slim.Annotations = map[string]string{kedav1alpha1.ValidationsHpaOwnershipAnnotation: value}
	}
	slim.Spec.ScaleTargetRef = hpa.Spec.ScaleTargetRef
	return slim, nil
}

func identity(o client.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion()}
}

// hpaName is the name of the HorizontalPodAutoscaler that an object has.
func hpaName(so *kedav1alpha1.ScaledObject) string {
	if a := so.Spec.Advanced; a != nil && a.HorizontalPodAutoscalerConfig != nil && a.HorizontalPodAutoscalerConfig.Name != "" {
		return a.HorizontalPodAutoscalerConfig.Name
	}
	return "keda-hpa-" + so.Name
}

// target names the kind of an object's target.
func (n *Neighbours) target(apiVersion, kind string) (string, error) {
	gvkr, err := kedav1alpha1.ParseGVKR(n.mapper, apiVersion, kind)
	if err != nil {
		return "", err
	}
	return gvkr.GVKString(), nil
}

// check refuses an object whose target or HorizontalPodAutoscaler is somebody else's.
func (n *Neighbours) check(ctx context.Context, so *kedav1alpha1.ScaledObject) error {
	kind, err := n.target(so.Spec.ScaleTargetRef.APIVersion, so.Spec.ScaleTargetRef.Kind)
	if err != nil {
		return err
	}
	if err := n.checkTarget(ctx, so, kind); err != nil {
		return err
	}
	if err := n.checkName(ctx, so); err != nil {
		return err
	}
	return n.checkHPAs(ctx, so, kind)
}

func (n *Neighbours) checkTarget(ctx context.Context, so *kedav1alpha1.ScaledObject, kind string) error {
	var list kedav1alpha1.ScaledObjectList
	if err := n.list(ctx, &list, so.Namespace, byTarget, so.Spec.ScaleTargetRef.Name); err != nil {
		return err
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.Name == so.Name {
			continue
		}
		// A kind that is gone is nobody's target.
		if theirs, err := n.target(other.Spec.ScaleTargetRef.APIVersion, other.Spec.ScaleTargetRef.Kind); err == nil && theirs == kind {
			return refused(reasonTarget, fmt.Errorf("the workload '%s' of type '%s' is already managed by the ScaledObject '%s'", so.Spec.ScaleTargetRef.Name, kind, other.Name))
		}
	}
	return nil
}

func (n *Neighbours) checkName(ctx context.Context, so *kedav1alpha1.ScaledObject) error {
	var list kedav1alpha1.ScaledObjectList
	if err := n.list(ctx, &list, so.Namespace, byHPA, hpaName(so)); err != nil {
		return err
	}
	for i := range list.Items {
		if other := &list.Items[i]; other.Name != so.Name {
			return refused(reasonTaken, fmt.Errorf("the HPA '%s' is already managed by the ScaledObject '%s'", hpaName(so), other.Name))
		}
	}
	return nil
}

func (n *Neighbours) checkHPAs(ctx context.Context, so *kedav1alpha1.ScaledObject, kind string) error {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := n.list(ctx, &list, so.Namespace, byTarget, so.Spec.ScaleTargetRef.Name); err != nil {
		return err
	}
	for i := range list.Items {
		hpa := &list.Items[i]
		if hpa.Annotations[kedav1alpha1.ValidationsHpaOwnershipAnnotation] == "false" || ownedBy(hpa, so.Name) {
			continue
		}
		theirs, err := n.target(hpa.Spec.ScaleTargetRef.APIVersion, hpa.Spec.ScaleTargetRef.Kind)
		if err != nil || theirs != kind {
			continue
		}
		switch {
		case so.Annotations[kedav1alpha1.ScaledObjectTransferHpaOwnershipAnnotation] != "true":
			return refused(reasonHPA, fmt.Errorf("the workload '%s' of type '%s' is already managed by the hpa '%s'", so.Spec.ScaleTargetRef.Name, kind, hpa.Name))
		case hpaName(so) != hpa.Name:
			return refused(reasonUnnamedHPA, fmt.Errorf("the existing hpa '%s' for workload '%s' of type '%s' must be specified by name in advanced settings to enable ownership transfer", hpa.Name, so.Spec.ScaleTargetRef.Name, kind))
		}
	}
	return nil
}

func ownedBy(hpa *autoscalingv2.HorizontalPodAutoscaler, name string) bool {
	for _, owner := range hpa.OwnerReferences {
		if owner.Kind == "ScaledObject" && owner.Name == name {
			return true
		}
	}
	return false
}

func (n *Neighbours) list(ctx context.Context, into client.ObjectList, namespace, field, value string) error {
	if err := n.objects.List(ctx, into, client.InNamespace(namespace), client.MatchingFields{field: value}); err != nil {
		return fmt.Errorf("looking for objects with the same %s: %w", field, err)
	}
	return nil
}

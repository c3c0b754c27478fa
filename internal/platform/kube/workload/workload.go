// Package workload finds the pods' template of objects that run pods, whatever their kind.
package workload

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// A Reader reads single objects; it keeps and follows none.
type Reader struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

// NewReader returns a Reader.
func NewReader(client dynamic.Interface, mapper meta.RESTMapper) *Reader {
	return &Reader{client, mapper}
}

// Template returns the template of an object's pods and the container that stands for it: the one
// asked for, else the first. The template is nil, without an error, if the object has none or no
// containers in it. The error is Kubernetes' NotFound if there is no such object.
//
// The template is at spec.template, as that of Deployments, StatefulSets, ReplicaSets, Jobs, Knative's
// Services and most other kinds is; or that of the object that spec.workloadRef names, as Argo's
// Rollouts do.
func (r *Reader) Template(ctx context.Context, namespace string, kind schema.GroupVersionKind, name, container string) (*corev1.PodTemplateSpec, string, error) {
	object, err := r.read(ctx, namespace, kind, name)
	if err != nil {
		return nil, "", err
	}
	if other, ok := named(object); ok {
		if object, err = r.read(ctx, namespace, schema.FromAPIVersionAndKind(other.apiVersion, other.kind), other.name); err != nil {
			return nil, "", err
		}
	}
	template, err := templateOf(object)
	if err != nil || len(template.Spec.Containers) == 0 {
		return nil, "", err
	}
	if container == "" {
		container = template.Spec.Containers[0].Name
	}
	return template, container, nil
}

func (r *Reader) read(ctx context.Context, namespace string, kind schema.GroupVersionKind, name string) (*unstructured.Unstructured, error) {
	mapping, err := r.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, fmt.Errorf("finding the resource of %s: %w", kind.GroupKind(), err)
	}
	object, err := r.client.Resource(mapping.Resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading %s %s/%s: %w", kind.GroupKind(), namespace, name, err)
	}
	return object, nil
}

// templateOf returns what is at spec.template, which may be nothing.
func templateOf(object *unstructured.Unstructured) (*corev1.PodTemplateSpec, error) {
	template := &corev1.PodTemplateSpec{}
	fields, found, _ := unstructured.NestedMap(object.Object, "spec", "template") // or something else that is called so
	if !found {
		return template, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, template); err != nil {
		return nil, fmt.Errorf("reading the pods' template of %s %s/%s: %w", object.GetKind(), object.GetNamespace(), object.GetName(), err)
	}
	return template, nil
}

// reference is what spec.workloadRef holds.
type reference struct{ apiVersion, kind, name string }

// named tells which other object has the template.
func named(object *unstructured.Unstructured) (reference, bool) {
	fields, _, err := unstructured.NestedStringMap(object.Object, "spec", "workloadRef")
	r := reference{fields["apiVersion"], fields["kind"], fields["name"]}
	return r, err == nil && r.kind != "" && r.name != ""
}

package trigger

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Objects reads the cluster's objects and tells of their changes.
type Objects interface {
	Followed
	// ConfigMap and Secret read one object from the API.
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// WatchConfigMap and WatchSecret follow one object, until stop is called.
	WatchConfigMap(namespace, name string, changed func()) (stop func())
	WatchSecret(namespace, name string, changed func()) (stop func())
}

// Followed are the objects that are in memory, all of a kind.
type Followed interface {
	// Pods returns a namespace's pods that match, from memory.
	Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error)
	// Nodes returns the nodes that match, from memory.
	Nodes(selector labels.Selector) ([]*corev1.Node, error)
	// EndpointSlices returns those of a Service, from memory.
	EndpointSlices(namespace, service string) ([]*discoveryv1.EndpointSlice, error)
	// WatchPods has changed called after pods of the namespace changed, until stop is called.
	WatchPods(namespace string, changed func()) (stop func())
	// WatchNodes has changed called after nodes changed, until stop is called.
	WatchNodes(changed func()) (stop func())
}

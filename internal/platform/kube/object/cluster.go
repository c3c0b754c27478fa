package object

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Cluster reads what triggers count or look at: pods, nodes and EndpointSlices from informers that
// others have, too, single ConfigMaps and Secrets from a Store.
type Cluster struct {
	store       *Store
	pods        coreinformers.PodInformer
	nodes       coreinformers.NodeInformer
	slices      discoveryinformers.EndpointSliceInformer
	podsChange  audience
	nodesChange audience
}

// NewCluster returns a Cluster; the informers are started by whoever made them.
func NewCluster(
	store *Store, pods coreinformers.PodInformer, nodes coreinformers.NodeInformer, slices discoveryinformers.EndpointSliceInformer,
) (*Cluster, error) {
	c := &Cluster{store: store, pods: pods, nodes: nodes, slices: slices}
	slices.Informer() // has it started with the others
	if _, err := pods.Informer().AddEventHandler(c.podsChange.handler()); err != nil {
		return nil, fmt.Errorf("following pods: %w", err)
	}
	if _, err := nodes.Informer().AddEventHandler(c.nodesChange.handler()); err != nil {
		return nil, fmt.Errorf("following nodes: %w", err)
	}
	return c, nil
}

// Pods returns a namespace's pods that match, from memory.
func (c *Cluster) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	return c.pods.Lister().Pods(namespace).List(selector)
}

// Nodes returns the nodes that match, from memory.
func (c *Cluster) Nodes(selector labels.Selector) ([]*corev1.Node, error) {
	return c.nodes.Lister().List(selector)
}

// EndpointSlices returns those of a Service, from memory.
func (c *Cluster) EndpointSlices(namespace, service string) ([]*discoveryv1.EndpointSlice, error) {
	return c.slices.Lister().EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service}))
}

// WatchPods has changed called after pods of the namespace changed, until stop is called.
func (c *Cluster) WatchPods(namespace string, changed func()) (stop func()) {
	return c.podsChange.join(namespace, changed)
}

// WatchNodes has changed called after nodes changed, until stop is called.
func (c *Cluster) WatchNodes(changed func()) (stop func()) { return c.nodesChange.join("", changed) }

// ConfigMap reads one.
func (c *Cluster) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return ConfigMaps.Get(ctx, c.store, namespace, name)
}

// Secret reads one.
func (c *Cluster) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return Secrets.Get(ctx, c.store, namespace, name)
}

// WatchConfigMap follows one, until stop is called.
func (c *Cluster) WatchConfigMap(namespace, name string, changed func()) (stop func()) {
	return c.store.Watch(ConfigMaps.Key(namespace, name), changed)
}

// WatchSecret follows one, until stop is called.
func (c *Cluster) WatchSecret(namespace, name string, changed func()) (stop func()) {
	return c.store.Watch(Secrets.Key(namespace, name), changed)
}

// audience are those who want to know of changes, by namespace. Its zero value is ready.
type audience struct {
	mu   sync.Mutex // guards seat
	seat map[string]map[*seat]struct{}
}

type seat struct{ changed func() }

func (a *audience) join(namespace string, changed func()) (leave func()) {
	s := &seat{changed}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seat == nil {
		a.seat = map[string]map[*seat]struct{}{}
	}
	if a.seat[namespace] == nil {
		a.seat[namespace] = map[*seat]struct{}{}
	}
	a.seat[namespace][s] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.seat[namespace], s)
		if len(a.seat[namespace]) == 0 {
			delete(a.seat, namespace)
		}
	}
}

func (a *audience) tell(o any) {
	if tomb, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = tomb.Obj
	}
	object, ok := o.(interface{ GetNamespace() string })
	if !ok {
		return
	}
	a.mu.Lock()
	var all []*seat
	for s := range a.seat[object.GetNamespace()] {
		all = append(all, s)
	}
	a.mu.Unlock()
	for _, s := range all {
		s.changed()
	}
}

func (a *audience) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    a.tell,
		UpdateFunc: func(_, o any) { a.tell(o) },
		DeleteFunc: a.tell,
	}
}

package triggertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// Objects is a cluster in memory that triggers can read and watch. Its changes are told from
// goroutines of their own, as a real one's are.
type Objects struct {
	mu       sync.Mutex // guards the fields below
	pods     map[string]*corev1.Pod
	nodes    map[string]*corev1.Node
	slices   map[string]*discoveryv1.EndpointSlice
	configs  map[string]*corev1.ConfigMap
	secrets  map[string]*corev1.Secret
	watchers map[int]watcher
	next     int
	down     bool
}

type watcher struct {
	kind, of string
	changed  func()
}

var _ trigger.Objects = (*Objects)(nil)

// NewObjects returns an empty cluster.
func NewObjects() *Objects {
	return &Objects{
		pods: map[string]*corev1.Pod{}, nodes: map[string]*corev1.Node{}, slices: map[string]*discoveryv1.EndpointSlice{},
		configs: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{},
		watchers: map[int]watcher{},
	}
}

// SetDown has every read fail, or work again, as when the API server restarts.
func (o *Objects) SetDown(down bool) {
	o.mu.Lock()
	o.down = down
	o.mu.Unlock()
}

// PutPod adds or replaces a pod.
func (o *Objects) PutPod(pod *corev1.Pod) {
	o.mu.Lock()
	o.pods[pod.Namespace+"/"+pod.Name] = pod.DeepCopy()
	o.mu.Unlock()
	o.tell("pods", pod.Namespace)
}

// DeletePod takes a pod away.
func (o *Objects) DeletePod(namespace, name string) {
	o.mu.Lock()
	delete(o.pods, namespace+"/"+name)
	o.mu.Unlock()
	o.tell("pods", namespace)
}

// PutSlice adds or replaces an EndpointSlice.
func (o *Objects) PutSlice(s *discoveryv1.EndpointSlice) {
	o.mu.Lock()
	o.slices[s.Namespace+"/"+s.Name] = s.DeepCopy()
	o.mu.Unlock()
}

// PutConfigMap adds or replaces a ConfigMap.
func (o *Objects) PutConfigMap(m *corev1.ConfigMap) {
	o.mu.Lock()
	o.configs[m.Namespace+"/"+m.Name] = m.DeepCopy()
	o.mu.Unlock()
	o.tell("configmap", m.Namespace+"/"+m.Name)
}

// PutSecret adds or replaces a Secret.
func (o *Objects) PutSecret(s *corev1.Secret) {
	o.mu.Lock()
	o.secrets[s.Namespace+"/"+s.Name] = s.DeepCopy()
	o.mu.Unlock()
	o.tell("secret", s.Namespace+"/"+s.Name)
}

// Watchers tells how many watches there are.
func (o *Objects) Watchers() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.watchers)
}

func (o *Objects) tell(kind, of string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.watchers {
		if w.kind == kind && w.of == of {
			go w.changed()
		}
	}
}

func (o *Objects) watch(kind, of string, changed func()) (stop func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := o.next
	o.next++
	o.watchers[id] = watcher{kind: kind, of: of, changed: changed}
	return func() {
		o.mu.Lock()
		delete(o.watchers, id)
		o.mu.Unlock()
	}
}

// Pods implements trigger.Objects.
func (o *Objects) Pods(namespace string, selector labels.Selector) (out []*corev1.Pod, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down {
		return nil, fmt.Errorf("listing pods of %s: connection refused", namespace)
	}
	for _, key := range slices.Sorted(maps.Keys(o.pods)) {
		if pod := o.pods[key]; pod.Namespace == namespace && selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, pod)
		}
	}
	return out, nil
}

// Nodes implements trigger.Objects.
func (o *Objects) Nodes(selector labels.Selector) (out []*corev1.Node, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, node := range o.nodes {
		if selector.Matches(labels.Set(node.Labels)) {
			out = append(out, node)
		}
	}
	return out, nil
}

// EndpointSlices implements trigger.Objects.
func (o *Objects) EndpointSlices(namespace, service string) (out []*discoveryv1.EndpointSlice, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down {
		return nil, fmt.Errorf("listing endpoints of %s: connection refused", service)
	}
	for _, key := range slices.Sorted(maps.Keys(o.slices)) {
		if s := o.slices[key]; s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == service {
			out = append(out, s)
		}
	}
	return out, nil
}

// WatchPods implements trigger.Objects.
func (o *Objects) WatchPods(namespace string, changed func()) (stop func()) {
	return o.watch("pods", namespace, changed)
}

// WatchNodes implements trigger.Objects.
func (o *Objects) WatchNodes(changed func()) (stop func()) { return o.watch("nodes", "", changed) }

// ConfigMap implements trigger.Objects.
func (o *Objects) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := o.configs[namespace+"/"+name]; m != nil && !o.down {
		return m, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

// Secret implements trigger.Objects.
func (o *Objects) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.secrets[namespace+"/"+name]; s != nil && !o.down {
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

// WatchConfigMap implements trigger.Objects.
func (o *Objects) WatchConfigMap(namespace, name string, changed func()) (stop func()) {
	return o.watch("configmap", namespace+"/"+name, changed)
}

// WatchSecret implements trigger.Objects.
func (o *Objects) WatchSecret(namespace, name string, changed func()) (stop func()) {
	return o.watch("secret", namespace+"/"+name, changed)
}

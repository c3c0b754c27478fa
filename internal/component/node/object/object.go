// Package object keeps the API objects that pods of a node refer to at hand.
//
// Only what is in use is watched: one watch per config map or secret that some pod names, kept a
// little longer than the last pod, so that a service that wakes again finds its objects here.
package object

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

const (
	linger    = 5 * time.Minute // after the last pod has gone
	retryTop  = 30 * time.Second
	retryFrom = 200 * time.Millisecond
)

type kind string

const (
	configMap kind = "configmaps"
	secret    kind = "secrets"
)

type key struct {
	kind            kind
	namespace, name string
}

// Cache follows the objects in use. The zero value is not usable; see New.
type Cache struct {
	client kubernetes.Interface
	log    *slog.Logger
	ctx    context.Context // ends all watches

	mu      sync.Mutex // guards entries and what is in them
	entries map[key]*entry
	next    int
}

// entry is one followed object.
type entry struct {
	key    key
	users  map[int]func()
	known  chan struct{} // closed once the first answer is here
	object runtime.Object
	cancel context.CancelFunc
	idle   *time.Timer
}

// New returns an empty cache; its watches end with ctx.
func New(ctx context.Context, client kubernetes.Interface, log *slog.Logger) *Cache {
	return &Cache{client: client, log: log, ctx: ctx, entries: map[key]*entry{}}
}

// ConfigMap returns a config map, from memory when some pod uses it.
func (c *Cache) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	obj, followed, err := c.read(ctx, key{configMap, namespace, name})
	if err != nil {
		return nil, err
	}
	if !followed {
		return c.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret returns a secret, from memory when some pod uses it.
func (c *Cache) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	obj, followed, err := c.read(ctx, key{secret, namespace, name})
	if err != nil {
		return nil, err
	}
	if !followed {
		return c.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return obj.(*corev1.Secret), nil
}

func (c *Cache) read(ctx context.Context, k key) (obj runtime.Object, followed bool, err error) {
	c.mu.Lock()
	e := c.entries[k]
	c.mu.Unlock()
	if e == nil {
		return nil, false, nil
	}
	select {
	case <-e.known:
	case <-ctx.Done():
		return nil, true, fmt.Errorf("reading %s %s/%s: %w", k.kind, k.namespace, k.name, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.object == nil {
		return nil, true, apierrors.NewNotFound(schema.GroupResource{Resource: string(k.kind)}, k.name)
	}
	return e.object, true, nil
}

// Use follows everything the pod refers to and calls changed after each change, until release.
func (c *Cache) Use(p *corev1.Pod, changed func()) (release func()) {
	keys := references(p)
	c.mu.Lock()
	c.next++
	id := c.next
	for k := range keys {
		c.follow(k).users[id] = changed
	}
	c.mu.Unlock()
	var once sync.Once
	return func() {
		once.Do(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			for k := range keys {
				c.leave(k, id)
			}
		})
	}
}

// follow starts a watch or finds the one that runs; c.mu is held.
func (c *Cache) follow(k key) *entry {
	if e, ok := c.entries[k]; ok {
		if e.idle != nil {
			e.idle.Stop()
			e.idle = nil
		}
		return e
	}
	ctx, cancel := context.WithCancel(c.ctx)
	e := &entry{key: k, users: map[int]func(){}, known: make(chan struct{}), cancel: cancel}
	c.entries[k] = e
	go c.run(ctx, e)
	return e
}

// leave takes a user away; the last one's leave ends the watch after a while. c.mu is held.
func (c *Cache) leave(k key, id int) {
	e, ok := c.entries[k]
	if !ok {
		return
	}
	delete(e.users, id)
	if len(e.users) > 0 || e.idle != nil {
		return
	}
	e.idle = time.AfterFunc(linger, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(e.users) == 0 && c.entries[k] == e {
			delete(c.entries, k)
			e.cancel()
		}
	})
}

// run lists and watches one object until ctx ends.
func (c *Cache) run(ctx context.Context, e *entry) {
	for wait := retryFrom; ctx.Err() == nil; wait = min(2*wait, retryTop) {
		begun := time.Now()
		err := c.watch(ctx, e)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > retryTop {
			wait = retryFrom
		}
		if err != nil {
			c.log.Warn("following an object", "kind", e.key.kind, "namespace", e.key.namespace, "name", e.key.name, "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (c *Cache) watch(ctx context.Context, e *entry) error {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", e.key.name).String()}
	obj, version, err := c.list(ctx, e.key, options)
	if err != nil {
		return err
	}
	c.set(e, obj)
	options.ResourceVersion = version
	options.AllowWatchBookmarks = true
	w, err := c.open(ctx, e.key, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		switch ev.Type {
		case watch.Added, watch.Modified:
			c.set(e, ev.Object)
		case watch.Deleted:
			c.set(e, nil)
		case watch.Error:
			return apierrors.FromObject(ev.Object)
		case watch.Bookmark: // only keeps the server's place
		}
	}
	return nil
}

func (c *Cache) list(ctx context.Context, k key, o metav1.ListOptions) (runtime.Object, string, error) {
	if k.kind == configMap {
		list, err := c.client.CoreV1().ConfigMaps(k.namespace).List(ctx, o)
		if err != nil || len(list.Items) == 0 {
			return nil, versionOf(list), err
		}
		return &list.Items[0], list.ResourceVersion, nil
	}
	list, err := c.client.CoreV1().Secrets(k.namespace).List(ctx, o)
	if err != nil || len(list.Items) == 0 {
		return nil, versionOf(list), err
	}
	return &list.Items[0], list.ResourceVersion, nil
}

func versionOf(l metav1.ListInterface) string {
	switch list := l.(type) {
	case *corev1.ConfigMapList:
		if list == nil {
			return ""
		}
	case *corev1.SecretList:
		if list == nil {
			return ""
		}
	}
	return l.GetResourceVersion()
}

func (c *Cache) open(ctx context.Context, k key, o metav1.ListOptions) (watch.Interface, error) {
	if k.kind == configMap {
		return c.client.CoreV1().ConfigMaps(k.namespace).Watch(ctx, o)
	}
	return c.client.CoreV1().Secrets(k.namespace).Watch(ctx, o)
}

// set stores the newest state and tells the users when it differs.
func (c *Cache) set(e *entry, obj runtime.Object) {
	c.mu.Lock()
	first := false
	select {
	case <-e.known:
	default:
		first = true
		close(e.known)
	}
	same := resourceVersion(e.object) == resourceVersion(obj)
	e.object = obj
	var tell []func()
	if !first && !same {
		for _, fn := range e.users {
			tell = append(tell, fn)
		}
	}
	c.mu.Unlock()
	for _, fn := range tell {
		fn()
	}
}

func resourceVersion(obj runtime.Object) string {
	if m, ok := obj.(metav1.Object); ok && obj != nil {
		return m.GetResourceVersion()
	}
	return ""
}

// references are the config maps and secrets a pod's volumes and containers name.
func references(p *corev1.Pod) map[key]bool {
	keys := map[key]bool{}
	add := func(k kind, name string) {
		if name != "" {
			keys[key{k, p.Namespace, name}] = true
		}
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.ConfigMap != nil {
			add(configMap, v.ConfigMap.Name)
		}
		if v.Secret != nil {
			add(secret, v.Secret.SecretName)
		}
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			s := &v.Projected.Sources[j]
			if s.ConfigMap != nil {
				add(configMap, s.ConfigMap.Name)
			}
			if s.Secret != nil {
				add(secret, s.Secret.Name)
			}
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			environment(&list[i], add)
		}
	}
	return keys
}

func environment(c *corev1.Container, add func(kind, string)) {
	for i := range c.EnvFrom {
		if ref := c.EnvFrom[i].ConfigMapRef; ref != nil {
			add(configMap, ref.Name)
		}
		if ref := c.EnvFrom[i].SecretRef; ref != nil {
			add(secret, ref.Name)
		}
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if from.ConfigMapKeyRef != nil {
			add(configMap, from.ConfigMapKeyRef.Name)
		}
		if from.SecretKeyRef != nil {
			add(secret, from.SecretKeyRef.Name)
		}
	}
}

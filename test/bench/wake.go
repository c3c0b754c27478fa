package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"ebb.dev/ebb/test/bench/source"
)

// The further resources of event-driven scaling.
var (
	scaledObjects = schema.GroupVersionResource{Group: "keda.sh", Version: "v1alpha1", Resource: "scaledobjects"}
	autoscalers   = schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}
	plainPods     = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// Bars from work to the replicas that it wants, milliseconds.
const (
	barTold  = 300  // of sources that tell, p99
	barAsked = 1000 // of sources that are asked, p99
	barStep  = 1000 // of further replicas, p99
	wakes    = 30
	steps    = 20
	stepWork = 40 // pieces, of which a replica takes five
)

// What KEDA documents, which no measurement of it can fall below on average by much.
const (
	kedaWake = "KEDA asks every 30 s (pollingInterval)"
	kedaStep = "with KEDA the HorizontalPodAutoscaler looks every 15 s"
)

// target is a Deployment that is scaled. It is paused and so gets no pods: how long they take is not
// the matter here.
func target(name string) *unstructured.Unstructured {
	o := deployment(name, "nothing")
	_ = unstructured.SetNestedField(o.Object, int64(0), "spec", "replicas")
	_ = unstructured.SetNestedField(o.Object, true, "spec", "paused")
	return o
}

// scaled is the ScaledObject of the Deployment of the same name.
func scaled(name, kind string, metadata map[string]string) *unstructured.Unstructured {
	of := map[string]any{}
	for k, v := range metadata {
		of[k] = v
	}
	limitless := map[string]any{"type": "Pods", "value": int64(1000), "periodSeconds": int64(15)}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
		"metadata": map[string]any{"name": name, "namespace": namespace},
		"spec": map[string]any{
			"scaleTargetRef": map[string]any{"name": name}, "cooldownPeriod": int64(1), "maxReplicaCount": int64(100),
			"advanced": map[string]any{"horizontalPodAutoscalerConfig": map[string]any{"behavior": map[string]any{
				"scaleUp": map[string]any{"policies": []any{limitless}},
			}}},
			"triggers": []any{map[string]any{"type": kind, "metadata": of}},
		},
	}}
}

// scale makes a Deployment and its ScaledObject.
func (b *scaling) scale(ctx context.Context, o *unstructured.Unstructured) error {
	if _, err := b.client.Resource(deployments).Namespace(namespace).Create(ctx, target(o.GetName()), metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := b.client.Resource(scaledObjects).Namespace(namespace).Create(ctx, o, metav1.CreateOptions{})
	return err
}

// scaling is an ebb with the servers that work waits in.
type scaling struct {
	*installation
	client  dynamic.Interface
	servers *source.Servers
	stop    func()

	mu      sync.Mutex // guards the rest
	at      map[string]count
	changed chan struct{} // closed at each change
}

// count is the replicas asked of a Deployment, and since when.
type count struct {
	n     int64
	since time.Time
}

// startScaling starts an ebb that has a way to tell at once what is asked of its Deployments.
func (r *run) startScaling(ctx context.Context, name string) (_ *scaling, err error) {
	b := &scaling{at: map[string]count{}, changed: make(chan struct{})}
	if b.installation, err = r.install(name); err != nil {
		return nil, err
	}
	if b.servers, err = source.New(); err != nil {
		return nil, err
	}
	b.stop = b.servers.Close
	defer func() {
		if err != nil {
			b.stop()
		}
	}()
	if _, err = b.up(ctx); err != nil {
		return nil, err
	}
	ctx, quit := context.WithCancel(ctx)
	b.stop = func() {
		quit()
		_ = b.down()
		b.servers.Close()
	}
	if b.client, err = b.installation.client(); err != nil {
		return nil, err
	}
	w, err := b.client.Resource(deployments).Namespace(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	go b.follow(ctx, w)
	return b, nil
}

func (b *scaling) follow(ctx context.Context, w watch.Interface) {
	defer w.Stop()
	err := follow(ctx, w, func(_ watch.EventType, o *unstructured.Unstructured) bool {
		n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		b.mu.Lock()
		defer b.mu.Unlock()
		if was, ok := b.at[o.GetName()]; !ok || was.n != n {
			b.at[o.GetName()] = count{n, time.Now()}
			close(b.changed)
			b.changed = make(chan struct{})
		}
		return false
	})
	if ctx.Err() == nil {
		fmt.Println("watching Deployments ended:", err)
	}
}

// replicas waits until those asked of a Deployment are as wanted, and tells since when they are.
func (b *scaling) replicas(ctx context.Context, name string, wanted func(n int64) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		b.mu.Lock()
		now, changed := b.at[name], b.changed
		b.mu.Unlock()
		if !now.since.IsZero() && wanted(now.n) {
			return now.since, nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("waiting for other replicas than %d of %s: %w", now.n, name, ctx.Err())
		case <-changed:
		}
	}
}

func none(n int64) bool { return n == 0 }
func some(n int64) bool { return n > 0 }

// ready waits until n ScaledObjects are.
func (b *scaling) ready(ctx context.Context, n int) error {
	return await(ctx, "ScaledObjects to be ready", func() (bool, error) {
		list, err := b.client.Resource(scaledObjects).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		waiting := n
		for k := range list.Items {
			if isReady(&list.Items[k]) {
				waiting--
			}
		}
		return waiting == 0, nil
	})
}

// isReady tells whether a ScaledObject is; its status tells of no generation.
func isReady(o *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, item := range conditions {
		if c, ok := item.(map[string]any); ok && c["type"] == "Ready" {
			return c["status"] == "True"
		}
	}
	return false
}

// pods is work that is a pod with a label, which no scheduler takes on.
func (b *scaling) pods(label string) *source.Source {
	of := b.client.Resource(plainPods).Namespace(namespace)
	return &source.Source{
		Name: "Kubernetes (kubernetes-workload)", Kind: "kubernetes-workload", Metadata: map[string]string{"podSelector": "work=" + label, "value": "5"},
		Put: func(ctx context.Context, n int) error {
			for range n {
				if _, err := of.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
					"apiVersion": "v1", "kind": "Pod",
					"metadata": map[string]any{"generateName": label + "-", "namespace": namespace, "labels": map[string]any{"work": label}},
					"spec":     map[string]any{"schedulerName": "none", "containers": []any{map[string]any{"name": "main", "image": "nothing"}}},
				}}, metav1.CreateOptions{}); err != nil {
					return err
				}
			}
			return nil
		},
		Drain: func(ctx context.Context) error {
			at := int64(0)
			return of.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &at}, metav1.ListOptions{LabelSelector: "work=" + label})
		},
	}
}

// prepare makes an object for each source, and waits until all are ready.
func (b *scaling) prepare(ctx context.Context, all []*source.Source) error {
	for k, s := range all {
		o := scaled(fmt.Sprintf("wake-%d", k), s.Kind, s.Metadata)
		if s.Fast {
			o.SetAnnotations(map[string]string{"ebb.dev/fast-poll": "true"})
		}
		if err := b.scale(ctx, o); err != nil {
			return err
		}
	}
	return b.ready(ctx, len(all))
}

// wakeUps measures how long it takes from work's coming to a replica's being asked for.
func wakeUps(ctx context.Context, r *run) ([]result, error) {
	b, err := r.startScaling(ctx, "wake")
	if err != nil {
		return nil, err
	}
	defer b.stop()
	all, err := b.servers.All(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, b.pods("task"))
	samples := make([][]time.Duration, len(all))
	if err := b.prepare(ctx, all); err != nil {
		return nil, err
	}
	for turn := range r.samples(wakes, 10) {
		for k, s := range all {
			took, err := b.wake(ctx, s, fmt.Sprintf("wake-%d", k))
			if err != nil {
				return nil, fmt.Errorf("waking by %s: %w", s.Name, err)
			}
			samples[k] = append(samples[k], took)
		}
		if err := b.sleep(ctx, all, turn); err != nil {
			return nil, err
		}
	}
	var out []result
	for k, s := range all {
		bar := float64(barTold)
		if s.Fast || s.Kind == "beanstalkd" {
			bar = barAsked
		}
		out = append(out, percentiles(s.Name+": work comes → replica asked for", samples[k], bar, kedaWake)...)
	}
	edges, err := b.edge(ctx)
	return append(out, percentiles("cron, all at one edge: start → replica asked for", edges, barTold, kedaWake)...), err
}

func percentiles(name string, samples []time.Duration, bar float64, against string) []result {
	return []result{
		info(fmt.Sprintf("%s, p50 of %d", name, len(samples)), ms(quantile(samples, 0.5)), "ms", against),
		atMost(fmt.Sprintf("%s, p99 of %d", name, len(samples)), ms(quantile(samples, 0.99)), "ms", bar, against),
	}
}

// wake puts one piece of work at any time of a second, for the sake of those who are asked.
func (b *scaling) wake(ctx context.Context, s *source.Source, name string) (time.Duration, error) {
	if _, err := b.replicas(ctx, name, none); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(rand.N(500 * time.Millisecond)):
	}
	began := time.Now()
	if err := s.Put(ctx, 1); err != nil {
		return 0, err
	}
	at, err := b.replicas(ctx, name, some)
	return at.Sub(began), err
}

// sleep takes all work away and waits until nothing is asked for. A change of the ScaledObjects has
// their sources asked at once, as less work may otherwise be noticed at the next interval only.
func (b *scaling) sleep(ctx context.Context, all []*source.Source, turn int) error {
	for k, s := range all {
		if err := s.Drain(ctx); err != nil {
			return fmt.Errorf("draining %s: %w", s.Name, err)
		}
		touch := fmt.Appendf(nil, `{"metadata":{"annotations":{"turn":"%d"}}}`, turn)
		if _, err := b.client.Resource(scaledObjects).Namespace(namespace).Patch(ctx, fmt.Sprintf("wake-%d", k), types.MergePatchType, touch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	for k := range all {
		if _, err := b.replicas(ctx, fmt.Sprintf("wake-%d", k), none); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
		return nil
	}
}

// edge has as many cron triggers as there are wakes elsewhere begin at the same moment.
func (b *scaling) edge(ctx context.Context) ([]time.Duration, error) {
	at := time.Now().UTC().Add(70 * time.Second).Truncate(time.Minute)
	minute := func(t time.Time) string { return fmt.Sprintf("%d %d * * *", t.Minute(), t.Hour()) }
	metadata := map[string]string{"timezone": "UTC", "start": minute(at), "end": minute(at.Add(5 * time.Minute)), "desiredReplicas": "1"}
	for k := range wakes {
		if err := b.scale(ctx, scaled(fmt.Sprintf("cron-%d", k), "cron", metadata)); err != nil {
			return nil, err
		}
	}
	var samples []time.Duration
	for k := range wakes {
		since, err := b.replicas(ctx, fmt.Sprintf("cron-%d", k), some)
		if err != nil {
			return nil, err
		}
		samples = append(samples, since.Sub(at))
	}
	return samples, nil
}

// further measures how long it takes from more work's coming to the replicas for it being asked for,
// once for each of many ScaledObjects.
func further(ctx context.Context, r *run) ([]result, error) {
	b, err := r.startScaling(ctx, "step")
	if err != nil {
		return nil, err
	}
	defer b.stop()
	redis, err := b.servers.Redis(ctx)
	if err != nil {
		return nil, err
	}
	lists := make([]*source.Source, r.samples(steps, 5))
	for k := range lists {
		name := fmt.Sprintf("step-%d", k)
		lists[k] = redis.List(name)
		if err := errors.Join(lists[k].Put(ctx, 1), b.scale(ctx, scaled(name, lists[k].Kind, lists[k].Metadata))); err != nil {
			return nil, err
		}
	}
	if err := b.ready(ctx, len(lists)); err != nil {
		return nil, err
	}
	var samples []time.Duration
	for k, list := range lists {
		name := fmt.Sprintf("step-%d", k)
		if _, err := b.replicas(ctx, name, some); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := list.Put(ctx, stepWork-1); err != nil {
			return nil, err
		}
		at, err := b.replicas(ctx, name, func(n int64) bool { return n >= stepWork/5 })
		if err != nil {
			return nil, err
		}
		samples = append(samples, at.Sub(began))
	}
	return percentiles(fmt.Sprintf("Redis list from 1 to %d items → from 1 to %d replicas asked for", stepWork, stepWork/5), samples, barStep, kedaStep), nil
}

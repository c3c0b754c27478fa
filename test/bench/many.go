package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"ebb.dev/ebb/test/bench/heap"
)

// Bars of many services at zero.
const (
	barRate      = 20  // made and ready a second, at least
	barManyCPU   = 5   // percent of a core above the bare Kubernetes
	barOwnHeap   = 100 // kB a service
	barProcess   = 500 // kB a service
	manyServices = 500
	manyWriters  = 10
)

// many makes services that have no instance, and then watches them do nothing.
func many(ctx context.Context, r *run) ([]result, error) {
	bare, err := r.startBare(ctx, "many-bare")
	if err != nil {
		return nil, err
	}
	defer func() { _ = bare.stop() }()
	i, image, client, err := r.furnish(ctx, "many")
	if err != nil {
		return nil, err
	}
	defer func() { _ = i.down() }()
	if err := zeroAtFirst(ctx, client); err != nil {
		return nil, err
	}
	return i.measureMany(ctx, r, client, manyOf{image: image, n: r.samples(manyServices, 100), bare: bare})
}

// manyOf says what is made, and what is looked at beside.
type manyOf struct {
	image string
	n     int
	bare  *bareKubernetes
}

func (i *installation) measureMany(ctx context.Context, r *run, client dynamic.Interface, m manyOf) ([]result, error) {
	before, err := i.footprint(ctx, r)
	if err != nil {
		return nil, err
	}
	took, err := makeMany(ctx, client, m)
	if err != nil {
		return nil, err
	}
	busy, err := cpuTime(before.pid)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, r); err != nil {
		return nil, err
	}
	shares, err := cpuShares(ctx, time.Duration(r.samples(60, 20))*time.Second, before.pid, m.bare.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	after, err := i.footprint(ctx, r)
	if err != nil {
		return nil, err
	}
	// Kubernetes' controllers make the ReplicaSets and the slices of Services with a selector.
	theirs, err := m.bare.heapFor(ctx, client, deployments, plainServices, endpointSlices)
	if err != nil {
		return nil, err
	}
	n := float64(m.n)
	each := func(mb float64) float64 { return mb * 1000 / n }
	return []result{
		atLeast(fmt.Sprintf("%d services with initial scale 0 made and ready", m.n), n/took.Seconds(), "services/s", barRate, fmt.Sprintf("CPU of the whole process for each: %.0f ms", ms(busy-before.cpu)/n)),
		atMost(fmt.Sprintf("CPU with %d services at zero, above the bare Kubernetes", m.n), shares[0]-shares[1], "% of a core", barManyCPU, fmt.Sprintf("ebb %.2f%%, bare Kubernetes %.2f%%", shares[0], shares[1])),
		atMost(fmt.Sprintf("ebb's own heap for each of %d services at zero", m.n), each(after.heap.Own-before.heap.Own-theirs), "kB", barOwnHeap, fmt.Sprintf("heap of the whole process: %.0f kB each; taken off: %.0f kB that Kubernetes' own caches hold of its own kinds of object", each(after.heap.All-before.heap.All), each(theirs))),
		atMost(fmt.Sprintf("resident memory of the whole process for each of %d services at zero", m.n), each(after.resident-before.resident), "kB", barProcess, fmt.Sprintf("%.0f MB with none, %.0f MB with all", before.resident, after.resident)),
	}, nil
}

// heapFor gives the bare Kubernetes the objects of its own kinds that others consist of, and tells by
// how many MB its heap grew other than by the API server's doing.
func (b *bareKubernetes) heapFor(ctx context.Context, from dynamic.Interface, kinds ...schema.GroupVersionResource) (float64, error) {
	before, err := heapOf(ctx, b.data)
	if err != nil {
		return 0, err
	}
	if err := b.copyFrom(ctx, from, kinds...); err != nil {
		return 0, err
	}
	if err := quiet(ctx); err != nil {
		return 0, err
	}
	after, err := heapOf(ctx, b.data)
	return after.Own - before.Own, err
}

// copyFrom gives the bare Kubernetes copies of all objects of some kinds that nothing makes by itself.
func (b *bareKubernetes) copyFrom(ctx context.Context, from dynamic.Interface, kinds ...schema.GroupVersionResource) error {
	config, err := access(b.data)
	if err != nil {
		return err
	}
	to, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manyWriters)
	for _, kind := range kinds {
		list, err := from.Resource(kind).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for n := range list.Items {
			o := &list.Items[n]
			if o.GetLabels()["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io" || o.GetName() == "kubernetes" {
				continue
			}
			g.Go(func() error {
				_, err := to.Resource(kind).Namespace(namespace).Create(gctx, alike(o), metav1.CreateOptions{})
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("copying objects to the bare Kubernetes: %w", err)
	}
	return nil
}

func heapOf(ctx context.Context, data string) (heap.Sizes, error) {
	config, err := access(data)
	if err != nil {
		return heap.Sizes{}, err
	}
	return heap.Of(ctx, config)
}

// alike is a copy that stands on its own in another cluster.
func alike(o *unstructured.Unstructured) *unstructured.Unstructured {
	out := o.DeepCopy()
	for _, field := range []string{"uid", "resourceVersion", "ownerReferences", "creationTimestamp", "generation", "managedFields"} {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	for _, field := range []string{"clusterIP", "clusterIPs", "healthCheckNodePort"} {
		if ip, _, _ := unstructured.NestedString(out.Object, "spec", "clusterIP"); ip != "None" {
			unstructured.RemoveNestedField(out.Object, "spec", field)
		}
	}
	unstructured.RemoveNestedField(out.Object, "status")
	return out
}

// makeMany makes the services, some at a time, and gives the time until the last of them was ready.
func makeMany(ctx context.Context, client dynamic.Interface, m manyOf) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	of := client.Resource(services).Namespace(namespace)
	w, err := of.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manyWriters + 1)
	g.Go(func() error {
		ready := map[string]bool{}
		err := follow(gctx, w, func(_ watch.EventType, o *unstructured.Unstructured) bool {
			if conditioned(o, "Ready") {
				ready[o.GetName()] = true
			}
			return len(ready) == m.n
		})
		if err != nil {
			return fmt.Errorf("waiting for %d services, of which %d are ready: %w", m.n, len(ready), err)
		}
		return nil
	})
	for k := range m.n {
		g.Go(func() error {
			o := knative(fmt.Sprintf("idle-%03d", k), m.image, map[string]any{"autoscaling.knative.dev/initial-scale": "0"})
			_, err := of.Create(gctx, o, metav1.CreateOptions{})
			return err
		})
	}
	err = g.Wait()
	return time.Since(began), err
}

// footprint is what a process takes.
type footprint struct {
	pid      int
	cpu      time.Duration // so far
	resident float64       // MB
	heap     heap.Sizes
}

// footprint looks at the settled process.
func (i *installation) footprint(ctx context.Context, r *run) (f footprint, err error) {
	if f.pid, err = i.pid(ctx); err != nil {
		return f, err
	}
	if err = settle(ctx, r); err != nil {
		return f, err
	}
	// Memory first: reading the heap collects garbage, which would flatter it.
	if f.resident, err = residentMB(f.pid); err != nil {
		return f, err
	}
	if f.heap, err = heapOf(ctx, i.data); err != nil {
		return f, err
	}
	f.cpu, err = cpuTime(f.pid)
	return f, err
}

package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// Bars of a Service made by one client, milliseconds until Ready.
const (
	barCreate     = 700
	barCreateZero = 150
)

// creations measures how long a Service takes to be ready, one after another: with a first instance
// whose image is here already, and with none.
func creations(ctx context.Context, r *run) ([]result, error) {
	i, image, client, err := r.furnish(ctx, "create")
	if err != nil {
		return nil, err
	}
	defer func() { _ = i.down() }()
	n := r.samples(50, 10)
	plain, err := created(ctx, client.Resource(deployments).Namespace(namespace), "Available", r.samples(15, 5), func(name string) *unstructured.Unstructured {
		return deployment(name, image)
	})
	if err != nil {
		return nil, err
	}
	ksvcs := client.Resource(services).Namespace(namespace)
	one, err := created(ctx, ksvcs, "Ready", n, func(name string) *unstructured.Unstructured { return knative(name, image, nil) })
	if err != nil {
		return nil, err
	}
	if err := zeroAtFirst(ctx, client); err != nil {
		return nil, err
	}
	none, err := created(ctx, ksvcs, "Ready", n, func(name string) *unstructured.Unstructured {
		return knative(name, image, map[string]any{"autoscaling.knative.dev/initial-scale": "0"})
	})
	if err != nil {
		return nil, err
	}
	write, err := written(ctx, client, n)
	if err != nil {
		return nil, err
	}
	p50 := func(samples []time.Duration) float64 { return ms(quantile(samples, 0.5)) }
	return []result{
		atMost(fmt.Sprintf("create a Service → Ready, its image here, p50 of %d", n), p50(one), "ms", barCreate, fmt.Sprintf("a plain Deployment of the image → Available: %.0f ms; p90 of ours: %.0f ms", p50(plain), ms(quantile(one, 0.9)))),
		atMost(fmt.Sprintf("create a Service with initial scale 0 → Ready, p50 of %d", n), p50(none), "ms", barCreateZero, fmt.Sprintf("one write to the API: %.1f ms; p90 of ours: %.0f ms", p50(write), ms(quantile(none, 0.9)))),
	}, nil
}

// created makes objects one after another on a quiet machine, each gone before the next.
func created(ctx context.Context, of dynamic.ResourceInterface, condition string, n int, object func(name string) *unstructured.Unstructured) ([]time.Duration, error) {
	foreground := metav1.DeletePropagationForeground
	var samples []time.Duration
	for k := range n {
		if err := quiet(ctx); err != nil {
			return nil, err
		}
		name := fmt.Sprintf("new-%03d", k)
		took, err := creation(ctx, of, object(name), condition)
		if err != nil {
			return nil, err
		}
		samples = append(samples, took)
		if err := of.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
			return nil, err
		}
	}
	return samples, await(ctx, "everything to be deleted", func() (bool, error) {
		list, err := of.List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0, err
	})
}

// written measures the least that can be done: one object written, which nobody looks at.
func written(ctx context.Context, client dynamic.Interface, n int) ([]time.Duration, error) {
	var samples []time.Duration
	for k := range n {
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": fmt.Sprintf("written-%03d", k), "namespace": namespace},
		}}
		began := time.Now()
		if _, err := client.Resource(configMaps).Namespace(namespace).Create(ctx, o, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		samples = append(samples, time.Since(began))
	}
	return samples, nil
}

// deployment is what a Service is compared with: one pod of the same image, asked whether it is
// there as a Service's is.
func deployment(name, image string) *unstructured.Unstructured {
	labels := map[string]any{"app": name}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name, "namespace": namespace},
		"spec": map[string]any{
			"replicas": int64(1), "selector": map[string]any{"matchLabels": labels},
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels},
				"spec": map[string]any{"containers": []any{map[string]any{
					"name": "main", "image": image,
					"readinessProbe": map[string]any{"tcpSocket": map[string]any{"port": int64(8080)}, "periodSeconds": int64(1)},
				}}},
			},
		},
	}}
}

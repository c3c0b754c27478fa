package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// What is asked of requests while revisions roll and instances go.
const (
	rollRequests   = 100_000
	rollScaleDowns = 100
	rollServices   = 8
	rollClients    = 32
	rollPhase      = 14 * time.Second // window, panic and all: until a service without load is at zero
	rollAtMost     = 10 * time.Minute
)

// rolling keeps a constant load on half of the services at a time. Each time the load moves on, the
// services it left scale down, those it met scale up, and one of them rolls to a new revision.
func rolling(ctx context.Context, r *run) (_ []result, err error) {
	i, err := r.install("roll")
	if err != nil {
		return nil, err
	}
	if _, err := i.up(ctx); err != nil {
		return nil, err
	}
	defer func() { _ = i.down() }()
	client, names, err := i.rollers(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rollAtMost)
	defer cancel()
	downs, err := countScaleDowns(ctx, client)
	if err != nil {
		return nil, err
	}
	defer downs.w.Stop()
	wantRequests, wantDowns := r.samples(rollRequests, 10_000), r.samples(rollScaleDowns, 10)
	load := newCrowd(ctx, rollClients, i.http, "sleep=15ms", names[0])
	defer load.stop()
	rolls, began := 0, time.Now()
	for turn := 1; ; turn++ {
		sent, failed := load.counted()
		if sent >= wantRequests && downs.count() >= wantDowns || len(failed) > 100 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("after %s %d requests, %d scale-downs: %w", rollAtMost, sent, downs.count(), ctx.Err())
		case <-time.After(rollPhase):
		}
		here := names[turn%2]
		load.move(here)
		name, _, _ := strings.Cut(here[turn%len(here)], ".")
		if err := roll(ctx, client, name, turn); err != nil {
			return nil, err
		}
		rolls++
	}
	load.stop()
	sent, failed := load.counted()
	against := fmt.Sprintf("%d requests by %d clients (%.0f/s), %d scale-downs, %d revisions rolled", sent, rollClients, float64(sent)/time.Since(began).Seconds(), downs.count(), rolls)
	if len(failed) > 0 {
		against += "; the first: " + failed[0].Error()
	}
	return []result{
		{Name: "requests failed while revisions roll and instances go", Value: float64(len(failed)), Unit: "requests", OK: len(failed) == 0, Against: against},
	}, nil
}

// rollers makes the services, in two halves, and gives their hosts.
func (i *installation) rollers(ctx context.Context) (dynamic.Interface, [2][]string, error) {
	var hosts [2][]string
	image, err := i.image(ctx)
	if err != nil {
		return nil, hosts, err
	}
	client, err := i.client()
	if err != nil {
		return nil, hosts, err
	}
	for k := range rollServices {
		name := fmt.Sprintf("roll-%d", k)
		o := knative(name, image, map[string]any{"autoscaling.knative.dev/window": "6s", "autoscaling.knative.dev/target": "3", "autoscaling.knative.dev/max-scale": "4"})
		if _, err := creation(ctx, client.Resource(services).Namespace(namespace), o, "Ready"); err != nil {
			return nil, hosts, err
		}
		hosts[k%2] = append(hosts[k%2], name+"."+namespace+".localhost")
	}
	return client, hosts, nil
}

// roll gives a service a new revision; it does not wait for it.
func roll(ctx context.Context, client dynamic.Interface, name string, turn int) error {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"labels":{"turn":"%d"}}}}}`, turn)
	_, err := client.Resource(services).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// scaleDowns counts how often a Deployment was told to run fewer pods.
type scaleDowns struct {
	w watch.Interface

	mu sync.Mutex // guards n
	n  int
}

func countScaleDowns(ctx context.Context, client dynamic.Interface) (*scaleDowns, error) {
	w, err := client.Resource(deployments).Namespace(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	d := &scaleDowns{w: w}
	go func() {
		last := map[string]int64{}
		err := follow(ctx, w, func(_ watch.EventType, o *unstructured.Unstructured) bool {
			want, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
			if want < last[o.GetName()] {
				d.mu.Lock()
				d.n++
				d.mu.Unlock()
			}
			last[o.GetName()] = want
			return false
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			fmt.Println("counting scale-downs ended:", err)
		}
	}()
	return d, nil
}

func (d *scaleDowns) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

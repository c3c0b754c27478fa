package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Bars of the cold path, milliseconds.
const (
	barColdP50  = 100
	barColdP99  = 250
	barTwenty   = 1500
	fleetSize   = 20 // services the samples go round
	coldSamples = 100
)

// coldStarts measures services woken one after another and all at once. At zero a service has no Pod
// object: each sample checks that first.
func coldStarts(ctx context.Context, r *run) ([]result, error) {
	i, err := r.install("cold")
	if err != nil {
		return nil, err
	}
	if _, err := i.up(ctx); err != nil {
		return nil, err
	}
	names, err := i.deployMany(ctx, fleetSize)
	if err == nil {
		var out []result
		if out, err = i.measureCold(ctx, r, names); err == nil {
			return out, i.down()
		}
	}
	_ = i.down()
	return nil, err
}

func (i *installation) measureCold(ctx context.Context, r *run, names []string) ([]result, error) {
	alone, err := bareStart(ctx, r)
	if err != nil {
		return nil, err
	}
	var samples []time.Duration
	slowest, stages := time.Duration(0), ""
	for len(samples) < r.samples(coldSamples, fleetSize) {
		if err := i.allAtZero(ctx); err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := quiet(ctx); err != nil {
				return nil, err
			}
			took, header, err := fetch(ctx, i.http, name+".default.localhost")
			if err != nil {
				return nil, fmt.Errorf("waking %s: %w", name, err)
			}
			if samples = append(samples, took); took > slowest {
				slowest, stages = took, header.Get("Server-Timing")
			}
		}
	}
	p50, p99 := quantile(samples, 0.5), quantile(samples, 0.99)
	fmt.Printf("slowest cold start %.0f ms: %s\n", ms(slowest), stages)
	against := fmt.Sprintf("the same container by the runtime alone: %.1f ms (×%.1f)", ms(alone), float64(p50)/float64(alone))
	if err := i.allAtZero(ctx); err != nil {
		return nil, err
	}
	last, lost := wakeAll(ctx, i.http, names)
	return []result{
		atMost(fmt.Sprintf("cold start of a Go hello, first byte, p50 of %d", len(samples)), ms(p50), "ms", barColdP50, against),
		atMost(fmt.Sprintf("cold start of a Go hello, first byte, p99 of %d", len(samples)), ms(p99), "ms", barColdP99, against),
		atMost(fmt.Sprintf("%d different services woken at once, last answer", len(names)), ms(last), "ms", barTwenty, fmt.Sprintf("one alone, p50: %.0f ms", ms(p50))),
		{Name: "requests lost while waking them", Value: float64(lost), Unit: "requests", OK: lost == 0, Against: "0 are allowed"},
	}, nil
}

// deployMany builds the hello once and makes services of its image that go to zero soon.
func (i *installation) deployMany(ctx context.Context, n int) ([]string, error) {
	image, err := i.image(ctx)
	if err != nil {
		return nil, err
	}
	var manifest strings.Builder
	names := make([]string, n)
	for k := range names {
		names[k] = fmt.Sprintf("hello-%03d", k)
		fmt.Fprintf(&manifest, "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  template:\n    metadata:\n      annotations: {autoscaling.knative.dev/window: 6s}\n    spec:\n      containers:\n      - {image: %q}\n", names[k], image)
	}
	if _, err := i.do(ctx, manifest.String(), "kubectl", "apply", "-f", "-"); err != nil {
		return nil, err
	}
	_, err = i.do(ctx, "", "kubectl", "wait", "ksvc", "--all", "--for=condition=Ready", "--timeout=180s")
	return names, err
}

// allAtZero waits until no Pod object of any service is left.
func (i *installation) allAtZero(ctx context.Context) error {
	return await(ctx, "zero pods", func() (bool, error) {
		out, err := i.do(ctx, "", "kubectl", "get", "pods", "-o", "name")
		return err == nil && !strings.Contains(out, "pod/"), err
	})
}

// wakeAll sends one request to each at the same moment; it tells when the last was answered.
func wakeAll(ctx context.Context, address string, names []string) (last time.Duration, lost int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			took, _, err := fetch(ctx, address, name+".default.localhost")
			mu.Lock()
			defer mu.Unlock()
			last = max(last, took)
			if err != nil {
				lost++
			}
		})
	}
	wg.Wait()
	return last, lost
}

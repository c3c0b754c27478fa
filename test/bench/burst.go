package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A burst on a service at zero.
const (
	burstClients = 200
	burstLimit   = 10  // requests an instance takes at once
	burstEach    = 5   // requests of each client, one after another
	barIdle      = 100 // ms an instance may be without work while a request waits
	burstWork    = 200 * time.Millisecond
)

// bursts sends 200 requests at once to a service at zero whose instances take ten each, and looks
// whether any instance was without work while requests waited.
func bursts(ctx context.Context, r *run) ([]result, error) {
	i, image, client, err := r.furnish(ctx, "burst")
	if err != nil {
		return nil, err
	}
	defer func() { _ = i.down() }()
	o := knative("burst", image, map[string]any{"autoscaling.knative.dev/window": "6s"})
	if err := unstructured.SetNestedField(o.Object, int64(burstLimit), "spec", "template", "spec", "containerConcurrency"); err != nil {
		return nil, err
	}
	if _, err := creation(ctx, client.Resource(services).Namespace(namespace), o, "Ready"); err != nil {
		return nil, err
	}
	if err := i.allAtZero(ctx); err != nil {
		return nil, err
	}
	if err := quiet(ctx); err != nil {
		return nil, err
	}
	answers := burst(ctx, i.http, "burst."+namespace+".localhost")
	return judgeBurst(answers)
}

// burst has all clients begin at the same moment.
func burst(ctx context.Context, address, host string) []answer {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all []answer
	for range burstClients {
		wg.Go(func() {
			client := newClient(true)
			defer client.CloseIdleConnections()
			for range burstEach {
				a := ask(ctx, client, address, host, "sleep="+burstWork.String())
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// work is what an instance did for one request.
type work struct {
	instance    string
	sent        time.Time // by the client
	began, done time.Time // at the instance
}

func judgeBurst(answers []answer) ([]result, error) {
	var all []work
	var errs []error
	for _, a := range answers {
		if a.err != nil {
			errs = append(errs, a.err)
			continue
		}
		w := work{sent: a.sent}
		var began, done int64
		if _, err := fmt.Sscan(a.body, &w.instance, &began, &done); err != nil {
			return nil, fmt.Errorf("reading an answer: %w", err)
		}
		w.began, w.done = time.Unix(0, began), time.Unix(0, done)
		all = append(all, w)
	}
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	idle, waited, most := worstIdle(all), 0*time.Second, map[string]int{}
	for _, w := range all {
		waited = max(waited, w.began.Sub(w.sent))
		most[w.instance] = max(most[w.instance], together(all, w))
	}
	highest := 0
	for _, n := range most {
		highest = max(highest, n)
	}
	failed := ""
	if len(errs) > 0 {
		failed = "; the first: " + errs[0].Error()
	}
	n := fmt.Sprintf("0 → %d at once on instances of %d", burstClients, burstLimit)
	return []result{
		{Name: n + ": requests failed", Value: float64(len(errs)), Unit: "requests", OK: len(errs) == 0, Against: fmt.Sprintf("%d requests, %d instances, at most %d at once in one%s", len(answers), len(most), highest, failed)},
		atMost(n+": longest that an instance had no work while a request waited", ms(idle), "ms", barIdle, fmt.Sprintf("a request takes %.0f ms; the longest wait for an instance: %.0f ms", ms(burstWork), ms(waited))),
	}, nil
}

// together counts the requests that were in w's instance when it came, itself included.
func together(all []work, w work) int {
	n := 0
	for _, other := range all {
		if other.instance == w.instance && !other.began.After(w.began) && other.done.After(w.began) {
			n++
		}
	}
	return n
}

// worstIdle is the longest time that an instance, once at work, had none although a request that it
// could have taken waited.
func worstIdle(all []work) time.Duration {
	of := map[string][]work{}
	for _, w := range all {
		of[w.instance] = append(of[w.instance], w)
	}
	worst := time.Duration(0)
	for _, list := range of {
		slices.SortFunc(list, func(a, b work) int { return a.began.Compare(b.began) })
		busy := list[0].done
		for _, w := range list[1:] {
			if w.began.After(busy) {
				worst = max(worst, waiting(all, busy, w.began))
			}
			busy = later(busy, w.done)
		}
		worst = max(worst, waiting(all, busy, last(all)))
	}
	return worst
}

// waiting is how much of a time any request waited that was sent before it.
func waiting(all []work, from, to time.Time) time.Duration {
	total, covered := time.Duration(0), from
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b work) int { return cmp.Compare(a.sent.UnixNano(), b.sent.UnixNano()) })
	for _, w := range sorted {
		begin, end := later(covered, w.sent), w.began
		if end.After(to) {
			end = to
		}
		if end.After(begin) {
			total += end.Sub(begin)
			covered = end
		}
	}
	return total
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func last(all []work) time.Time {
	t := all[0].began
	for _, w := range all {
		t = later(t, w.began)
	}
	return t
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"ebb.dev/ebb/test/bench/source"
)

// Bars of many ScaledObjects.
const (
	barObjects       = 60   // s until all are ready
	barObjectsCPU    = 20   // percent of a core
	barObjectHeap    = 60   // kB each
	barObjectProcess = 300  // kB each
	perConnection    = 100  // objects of a server, at least
	fullObjects      = 2000 // with fewer, the few connections that a server takes at least are no measure
	everyActive      = 20   // one in so many has work
)

// objects makes many ScaledObjects of several types, most of which have no work, and watches them.
func objects(ctx context.Context, r *run) ([]result, error) {
	bare, err := r.startBare(ctx, "objects-bare")
	if err != nil {
		return nil, err
	}
	defer func() { _ = bare.stop() }()
	b, err := r.startScaling(ctx, "objects")
	if err != nil {
		return nil, err
	}
	defer b.stop()
	all, err := b.mixture(ctx, r.objects)
	if err != nil {
		return nil, err
	}
	if err := b.writeAll(ctx, len(all), func(ctx context.Context, k int) error {
		_, err := b.client.Resource(deployments).Namespace(namespace).Create(ctx, target(objectName(k)), metav1.CreateOptions{})
		return err
	}); err != nil {
		return nil, err
	}
	if err := bare.copyFrom(ctx, b.client, deployments); err != nil {
		return nil, err
	}
	return b.measureObjects(ctx, r, all, bare)
}

func objectName(k int) string { return fmt.Sprintf("object-%04d", k) }

// mixture gives the sources: six in ten are Redis lists, two PostgreSQL, one pods, one cron. One in
// twenty, a list, has work.
func (b *scaling) mixture(ctx context.Context, n int) ([]*source.Source, error) {
	redis, err1 := b.servers.Redis(ctx)
	database, err2 := b.servers.PostgreSQL(ctx)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	all := make([]*source.Source, n)
	for k := range all {
		switch name := objectName(k); k % 10 {
		case 6, 7:
			all[k] = database.Queue(name, true)
		case 8:
			all[k] = b.pods(name)
		case 9:
			// At no time that is near.
			day := time.Now().UTC().AddDate(0, 0, 7)
			all[k] = &source.Source{Kind: "cron", Metadata: map[string]string{
				"timezone": "UTC", "desiredReplicas": "1",
				"start": fmt.Sprintf("0 0 %d %d *", day.Day(), day.Month()), "end": fmt.Sprintf("0 1 %d %d *", day.Day(), day.Month()),
			}}
		default:
			all[k] = redis.List(name)
			if k%everyActive == 0 {
				if err := all[k].Put(ctx, 1); err != nil {
					return nil, err
				}
			}
		}
	}
	return all, nil
}

// writeAll writes some at a time.
func (b *scaling) writeAll(ctx context.Context, n int, write func(ctx context.Context, k int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(manyWriters)
	for k := range n {
		g.Go(func() error { return write(ctx, k) })
	}
	return g.Wait()
}

// makeObjects makes the ScaledObjects and gives the time until the last of them was ready.
func (b *scaling) makeObjects(ctx context.Context, all []*source.Source) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	of := b.client.Resource(scaledObjects).Namespace(namespace)
	w, err := of.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return b.writeAll(gctx, len(all), func(ctx context.Context, k int) error {
			_, err := of.Create(ctx, scaled(objectName(k), all[k].Kind, all[k].Metadata), metav1.CreateOptions{})
			return err
		})
	})
	g.Go(func() error {
		ready := map[string]bool{}
		err := follow(gctx, w, func(_ watch.EventType, o *unstructured.Unstructured) bool {
			if isReady(o) {
				ready[o.GetName()] = true
			}
			return len(ready) == len(all)
		})
		if err != nil {
			return fmt.Errorf("waiting for %d ScaledObjects, of which %d are ready: %w", len(all), len(ready), err)
		}
		return nil
	})
	err = g.Wait()
	return time.Since(began), err
}

func (b *scaling) measureObjects(ctx context.Context, r *run, all []*source.Source, bare *bareKubernetes) ([]result, error) {
	before, err := b.footprint(ctx, r)
	if err != nil {
		return nil, err
	}
	took, err := b.makeObjects(ctx, all)
	if err != nil {
		return nil, err
	}
	busy, err := cpuTime(before.pid)
	if err != nil {
		return nil, err
	}
	for range 2 { // what the making left in memory is returned within a minute
		if err := settle(ctx, r); err != nil {
			return nil, err
		}
	}
	shares, err := cpuShares(ctx, time.Duration(r.samples(60, 20))*time.Second, before.pid, bare.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	after, err := b.footprint(ctx, r)
	if err != nil {
		return nil, err
	}
	most, where, err := crowded(before.pid, all)
	if err != nil {
		return nil, err
	}
	theirs, err := bare.heapFor(ctx, b.client, autoscalers)
	if err != nil {
		return nil, err
	}
	connections := atMost(fmt.Sprintf("connections for each %d objects of one server, the most", perConnection), most, "connections", 1, where)
	if len(all) < fullObjects {
		connections = info(connections.Name, most, connections.Unit, where)
	}
	n := len(all)
	each := func(mb float64) float64 { return mb * 1000 / float64(n) }
	return []result{
		atMost(fmt.Sprintf("%d ScaledObjects made and ready", n), took.Seconds(), "s", barObjects, fmt.Sprintf("CPU of the whole process for each: %.1f ms", ms(busy-before.cpu)/float64(n))),
		atMost(fmt.Sprintf("CPU of the whole process with %d ScaledObjects, one in %d with work", n, everyActive), shares[0], "% of a core", barObjectsCPU, fmt.Sprintf("bare Kubernetes with the Deployments: %.2f%%", shares[1])),
		atMost(fmt.Sprintf("ebb's own heap for each of %d ScaledObjects", n), each(after.heap.Own-before.heap.Own-theirs), "kB", barObjectHeap, fmt.Sprintf("heap of the whole process: %.0f kB each; taken off: %.0f kB that Kubernetes' own caches hold of HorizontalPodAutoscalers", each(after.heap.All-before.heap.All), each(theirs))),
		atMost(fmt.Sprintf("resident memory of the whole process for each of %d ScaledObjects", n), each(after.resident-before.resident), "kB", barObjectProcess, fmt.Sprintf("%.0f MB with their Deployments alone, %.0f MB with all", before.resident, after.resident)),
		connections,
	}, nil
}

// crowded tells how many connections a process has to the server where they are most for the objects
// that it has there, and how many it has to each.
func crowded(pid int, all []*source.Source) (most float64, where string, err error) {
	share := map[string]int{}
	kinds := map[string]string{}
	for _, s := range all {
		if s.Port != "" {
			share[s.Port]++
			kinds[s.Port] = s.Kind
		}
	}
	have, err := connectionsOf(pid)
	if err != nil {
		return 0, "", err
	}
	var words []string
	for port, n := range share {
		most = max(most, float64(have[port]*perConnection)/float64(n))
		words = append(words, fmt.Sprintf("%d to %s for %d objects", have[port], kinds[port], n))
	}
	return most, strings.Join(words, ", "), nil
}

// connectionsOf counts a process's connections by the port they lead to.
func connectionsOf(pid int) (map[string]int, error) {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil { // others are closed by now
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	counts := map[string]int{}
	for _, file := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			const remote, state, inode, established = 2, 3, 9, "01"
			f := strings.Fields(line)
			if len(f) <= inode || f[state] != established || !own[f[inode]] {
				continue
			}
			_, hex, _ := strings.Cut(f[remote], ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
				counts[strconv.FormatUint(port, 10)]++
			}
		}
	}
	return counts, nil
}

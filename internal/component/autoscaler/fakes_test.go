package autoscaler_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/demand"
	"ebb.dev/ebb/internal/platform/fleet"
)

var hello = types.NamespacedName{Namespace: "default", Name: "hello-00001"}

// A cluster is Fleet and Scaler in one: what is asked for becomes ready after a while.
type cluster struct {
	mu       sync.Mutex
	replicas map[types.NamespacedName]int32
	ready    map[types.NamespacedName]int
	listen   func(types.NamespacedName)
	writes   []int32
	reads    int

	slow    func(replicas int32) time.Duration // how long a write takes
	refuse  func() error                       // why the next write fails
	startup time.Duration                      // how long an instance takes to become ready
}

func newCluster() *cluster {
	return &cluster{replicas: map[types.NamespacedName]int32{}, ready: map[types.NamespacedName]int{}}
}

func (c *cluster) Ready(key types.NamespacedName) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready[key]
}

func (c *cluster) Counts(key types.NamespacedName) fleet.Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fleet.Counts{Ready: c.ready[key], NotReady: 3, Pending: 2, Terminating: 1}
}

func (c *cluster) Subscribe(fn func(types.NamespacedName)) { c.listen = fn }

func (c *cluster) Replicas(_ context.Context, key types.NamespacedName) (int32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	n, ok := c.replicas[key]
	if !ok {
		return 0, autoscaler.ErrNotFound
	}
	return n, nil
}

func (c *cluster) Scale(ctx context.Context, key types.NamespacedName, replicas int32, _ string) error {
	c.mu.Lock()
	var wait time.Duration
	if c.slow != nil {
		wait = c.slow(replicas)
	}
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, replicas)
	if c.refuse != nil {
		if err := c.refuse(); err != nil {
			return err
		}
	}
	if _, ok := c.replicas[key]; !ok {
		return autoscaler.ErrNotFound
	}
	c.replicas[key] = replicas
	time.AfterFunc(c.startup, func() { c.follow(key) })
	return nil
}

// follow makes as many instances ready as are asked for.
func (c *cluster) follow(key types.NamespacedName) {
	c.mu.Lock()
	c.ready[key] = int(c.replicas[key])
	c.mu.Unlock()
	c.listen(key)
}

// create makes a Deployment with that many instances, all of them ready.
func (c *cluster) create(key types.NamespacedName, replicas int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replicas[key], c.ready[key] = replicas, int(replicas)
}

func (c *cluster) asked(key types.NamespacedName) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replicas[key]
}

func (c *cluster) written() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

// A bench is an autoscaler at work in a bubble.
type bench struct {
	*autoscaler.Autoscaler
	cluster *cluster
	book    *demand.Book
	stop    func()
}

func start(t *testing.T, c *cluster) *bench {
	t.Helper()
	b := &bench{cluster: c, book: demand.NewBook()}
	b.Autoscaler = autoscaler.New(autoscaler.Config{
		Fleet: c, Demand: b.book, Scaler: c, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	synctest.Wait()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	}
	return b
}

// request is one request that takes as long as said once an instance is ready, as the gateway would
// account for it.
func (b *bench) request(key types.NamespacedName, takes time.Duration) {
	b.arrive(key)
	time.Sleep(takes)
	b.book.Meter(key).Out(time.Now())
}

func (b *bench) arrive(key types.NamespacedName) {
	if b.book.Meter(key).In(time.Now()) {
		b.Active(key)
	}
	if b.cluster.Ready(key) == 0 {
		b.Wake(key)
	}
}

func kpa(change ...func(*scale.Spec)) scale.Spec {
	spec, err := scale.Parse(nil, 0, scale.Standard())
	if err != nil {
		panic(err)
	}
	spec.Initialized = true
	for _, fn := range change {
		fn(&spec)
	}
	return spec
}

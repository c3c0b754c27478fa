// Package jobs makes a Job for each unit of work that ScaledJobs' triggers count, and takes finished
// ones away.
//
// Observations come from an Observer, by the clock and whenever a source says that something changed.
// Jobs are watched, not listed. What both tell meets in a ledger for each ScaledJob (see domain/jobs),
// which also knows the Jobs that are being made: two observations of one message make one Job.
//
//	Observe ──┐                                  ┌─► Jobs created, side by side
//	Job seen ─┼─► queue, one key at a time ─► decide ─► finished Jobs deleted, oldest first
//	Follow  ──┘                                  └─► State ─► Subscribe
//
// A Job that ends while work waits for room, and one that has had the time to take its work while
// other work is taken to be its, have the sources asked again at once.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"

	"ebb.dev/ebb/internal/domain/activation"
	rules "ebb.dev/ebb/internal/domain/jobs"
)

// workers is how many ScaledJobs are worked on at once.
const workers = 8

// An Observer asks ScaledJobs' sources of work and hands what they say to Engine.Observe.
type Observer interface {
	// Follow makes the sources of an object's triggers, those only that are new or changed, and
	// observes them from then on: at once, every polling interval, and when a source says so. It
	// returns the triggers that have no source. An error means that none can be asked.
	Follow(ctx context.Context, object *kedav1alpha1.ScaledJob) ([]activation.FailedTrigger, error)
	// Unfollow lets go of an object's sources.
	Unfollow(key types.NamespacedName)
	// Refresh has the sources be asked now: an observation that began after this call follows soon,
	// unless asking costs too much to be done out of turn. It does not block. Calls that come close
	// together may have one observation.
	Refresh(key types.NamespacedName)
}

// Config is what an Engine is made of. All fields but Registerer are needed.
type Config struct {
	Client   kubernetes.Interface
	Observer Observer
	Events   events.EventRecorder
	// Version is what Jobs' label app.kubernetes.io/version says.
	Version    string
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// An Engine makes the Jobs of all ScaledJobs that it follows. Its methods may be called from many
// goroutines.
//
// An object's turn is taken before its mu, and that before the engine's.
type Engine struct {
	client   kubernetes.Interface
	observer Observer
	events   events.EventRecorder
	version  string
	log      *slog.Logger
	metrics  *metrics

	factory informers.SharedInformerFactory
	jobs    cache.SharedIndexInformer
	synced  chan struct{} // closed when all Jobs that there were at the start are known
	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu        sync.Mutex // guards the fields below; held for look-ups only
	objects   map[types.NamespacedName]*object
	listeners []func(types.NamespacedName)
	pods      cache.SharedIndexInformer // nil until a ScaledJob asks for its pods' conditions
	running   context.Context           // of Run while it runs
}

// New returns an engine that follows nothing.
func New(c Config) (*Engine, error) {
	e := &Engine{
		client: c.Client, observer: c.Observer, events: c.Events, version: c.Version, log: c.Log,
		metrics: newMetrics(c.Registerer),
		synced:  make(chan struct{}),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](100*time.Millisecond, 30*time.Second)),
		objects: map[types.NamespacedName]*object{},
	}
	if err := e.watchJobs(); err != nil {
		return nil, err
	}
	return e, nil
}

// Run works until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.running = ctx
	e.mu.Unlock()
	e.factory.StartWithContext(ctx)
	defer e.factory.Shutdown()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-gctx.Done()
		e.queue.ShutDown()
		return nil
	})
	if cache.WaitForCacheSync(gctx.Done(), e.jobs.HasSynced) {
		close(e.synced)
		for range workers {
			g.Go(func() error {
				for e.next(gctx) {
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// next works on one object; false when there will be no more.
func (e *Engine) next(ctx context.Context) bool {
	key, end := e.queue.Get()
	if end {
		return false
	}
	defer e.queue.Done(key)
	if err := e.work(ctx, key); err != nil {
		if ctx.Err() == nil {
			e.log.Warn("working on scaled job", "scaledJob", key, "error", err)
			e.queue.AddRateLimited(key)
		}
		return true
	}
	e.queue.Forget(key)
	return true
}

// Follow begins with an object, or goes on with a changed one. An error means that none of its triggers
// can be asked; what concerns single triggers is in its State.
func (e *Engine) Follow(ctx context.Context, scaled *kedav1alpha1.ScaledJob) error {
	if err := e.ready(ctx); err != nil {
		return err
	}
	key := types.NamespacedName{Namespace: scaled.Namespace, Name: scaled.Name}
	o, err := e.hold(ctx, key)
	if err != nil {
		return err
	}
	defer e.release(o)
	if o.same(scaled) {
		return nil
	}
	if len(scaled.Spec.ScalingStrategy.PendingPodConditions) > 0 {
		if err := e.watchPods(ctx); err != nil {
			return err
		}
	}
	o.await(scaled, time.Now())
	failed, err := e.observer.Follow(ctx, scaled.DeepCopy())
	if err == nil && len(failed) == len(scaled.Spec.Triggers) && !slices.ContainsFunc(failed, func(f activation.FailedTrigger) bool { return f.NotBuiltIn }) {
		err = joined(failed)
	}
	if err != nil {
		o.pause()
		e.tellFailed(scaled, failed, err)
		return fmt.Errorf("following the triggers of scaled job %s: %w", key, err)
	}
	begun := o.follow(scaled.DeepCopy(), failed)
	e.seed(o)
	e.tellStarted(scaled, failed, begun)
	e.publish(o, o.unasked())
	return nil
}

// ready waits until the Jobs that there are are known.
func (e *Engine) ready(ctx context.Context) error {
	select {
	case <-e.synced:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the jobs that there are: %w", context.Cause(ctx))
	}
}

func joined(failed []activation.FailedTrigger) error {
	var all []error
	for _, f := range failed {
		all = append(all, fmt.Errorf("trigger %d (%s): %w", f.Index, f.Type, f.Err))
	}
	return errors.Join(all...)
}

// Unfollow lets go of an object: no Jobs are made any more, and those there are stay as they are. It is
// so, too, with a paused one.
func (e *Engine) Unfollow(key types.NamespacedName) {
	e.observer.Unfollow(key)
	e.mu.Lock()
	o := e.objects[key]
	e.mu.Unlock()
	if o == nil {
		return
	}
	o.acting <- struct{}{}
	defer e.release(o) // whereupon the object is forgotten once that makes no difference
	if was := o.unfollow(); was != nil {
		e.tellStopped(was)
	}
	e.metrics.forget(key)
}

// Supersede has an object's earlier versions make no more Jobs, and returns the names of those that
// they made, finished ones included, in their order. Of the version that is followed nothing is
// superseded, and it goes on.
func (e *Engine) Supersede(ctx context.Context, key types.NamespacedName, generation int64) ([]string, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	o, err := e.hold(ctx, key)
	if err != nil {
		return nil, err
	}
	defer e.release(o)
	if o.follows(generation) {
		return nil, nil
	}
	o.pause()
	names := o.outdated(generation)
	for _, job := range e.jobsOf(key) {
		if rules.Outdated(job.Annotations[generationAnnotation], generation) && !slices.Contains(names, job.Name) {
			names = append(names, job.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Observe takes an observation. It does not block.
func (e *Engine) Observe(key types.NamespacedName, seen rules.Observation) {
	e.mu.Lock()
	o := e.objects[key]
	e.mu.Unlock()
	if o != nil && o.take(seen) {
		e.queue.Add(key)
	}
}

// State tells, in the fields of a status that it has an opinion about, what was decided for an object;
// false before the first decision. Those are the conditions Ready and Active, LastActiveTime,
// TriggersActivity and ExternalMetricNames.
func (e *Engine) State(key types.NamespacedName) (kedav1alpha1.ScaledJobStatus, bool) {
	e.mu.Lock()
	o := e.objects[key]
	e.mu.Unlock()
	if o == nil {
		return kedav1alpha1.ScaledJobStatus{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return *o.status.DeepCopy(), o.told
}

// Subscribe has fn called after a State changed; it does not block.
func (e *Engine) Subscribe(fn func(key types.NamespacedName)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = append(slices.Clip(e.listeners), fn)
}

// publish puts a status in force.
func (e *Engine) publish(o *object, status *kedav1alpha1.ScaledJobStatus) {
	if status == nil || !o.publish(*status) {
		return
	}
	e.mu.Lock()
	listeners := e.listeners
	e.mu.Unlock()
	for _, fn := range listeners {
		fn(o.key)
	}
}

// hold returns what is known of an object, from now on if nothing was, with its turn taken.
func (e *Engine) hold(ctx context.Context, key types.NamespacedName) (*object, error) {
	for {
		e.mu.Lock()
		o := e.objects[key]
		if o == nil {
			o = newObject(key)
			e.objects[key] = o
		}
		e.mu.Unlock()
		if err := o.acting.take(ctx); err != nil {
			return nil, err
		}
		e.mu.Lock()
		current := e.objects[key] == o // it may have been forgotten meanwhile
		e.mu.Unlock()
		if current {
			return o, nil
		}
		o.acting.give()
	}
}

// release gives an object's turn back, and has be done what could not be meanwhile.
func (e *Engine) release(o *object) {
	o.acting.give()
	e.queue.Add(o.key)
}

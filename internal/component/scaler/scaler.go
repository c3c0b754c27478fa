// Package scaler asks the triggers of ScaledObjects and ScaledJobs how much work waits. It decides how
// many replicas ScaledObjects' targets have and writes them; what it is told for ScaledJobs it hands on.
//
//	push, interval ──► lane: ask those triggers that are due ──► observation ──► decide ──► replicas
//	autoscaler asks ──► Metric: the last observation, or a new one                     └──► State
//
// One observation feeds the decision, the HorizontalPodAutoscaler and the metrics. From nothing to the
// first replicas, and upwards, replicas are written at once by the autoscaler's own arithmetic; the
// autoscaler confirms that later, and it alone scales down to the minimum. Targets that no
// HorizontalPodAutoscaler can scale are scaled down here, too.
package scaler

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/adapter/credential"
	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/activation"
	"ebb.dev/ebb/internal/domain/jobs"
)

// Credentials find what triggers sign in with. *credential.Resolver is one.
type Credentials interface {
	Resolve(ctx context.Context, q credential.Request) (credential.Resolved, error)
	// Watch has changed called after what Resolve answers may have changed, until stop is called.
	Watch(q credential.Request, changed func()) (stop func())
}

// Targets read and write numbers of replicas.
type Targets interface {
	// Resolve tells which kind and resource a reference means.
	Resolve(ref *kedav1alpha1.ScaleTarget) (kedav1alpha1.GroupVersionKindResource, error)
	// Horizontal tells whether a HorizontalPodAutoscaler scales objects of a kind.
	Horizontal(kind kedav1alpha1.GroupVersionKindResource) bool
	Replicas(ctx context.Context, of activation.Target) (int32, error)
	SetReplicas(ctx context.Context, of activation.Target, n int32) error
	// Template finds the pods' template of a ScaledObject's or ScaledJob's target, and which container's
	// environment counts; nil if it has none.
	Template(ctx context.Context, object client.Object) (*corev1.PodTemplateSpec, string, error)
}

// Config is what an Engine is made of.
type Config struct {
	// Builders make the sources of the types that are built in.
	Builders map[string]trigger.Build
	// Known tells types that exist, built in or not.
	Known       func(kind string) bool
	Environment trigger.Environment
	Credentials Credentials
	Targets     Targets
	// Tell records an event of a ScaledObject.
	Tell func(object *kedav1alpha1.ScaledObject, eventType, reason, message string)
	// Starting, if not nil, is told before the first replicas are written; it returns what to call after
	// that. What nobody waits for may give way meanwhile.
	Starting func(key types.NamespacedName) (done func())
	// Work takes what the triggers of a ScaledJob said; it does not block.
	Work func(key types.NamespacedName, seen jobs.Observation)
	// Timeout bounds one request to a source; 3 s if 0, as KEDA_HTTP_DEFAULT_TIMEOUT.
	Timeout time.Duration
	Log     *slog.Logger
}

// An Engine follows ScaledObjects, and by Jobs ScaledJobs. Its methods may be called from many
// goroutines.
type Engine struct {
	config Config
	jobs   *Jobs
	made   time.Time

	mu        sync.Mutex // guards the fields below; never held while a source, the API or a lane is asked
	objects   map[types.NamespacedName]*object
	listeners []func(types.NamespacedName)
	running   context.Context // of Run; nil before and after
	loops     sync.WaitGroup  // of all that was begun with running
}

// New returns an engine that follows nothing.
func New(c Config) *Engine {
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	e := &Engine{config: c, made: time.Now(), objects: map[types.NamespacedName]*object{}}
	e.jobs = &Jobs{engine: e, lanes: map[types.NamespacedName]*lane{}}
	return e
}

// next is when an interval that begins now ends.
func (e *Engine) next(now time.Time, interval time.Duration) time.Time {
	at := now.Add(interval)
	if interval < coarse {
		return at
	}
	return e.made.Add(at.Sub(e.made).Round(grid))
}

// Run keeps the engine going until ctx ends; what is followed before starts with it.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.running = ctx
	var lanes []*lane
	for _, o := range e.objects {
		lanes = append(lanes, o.lane)
	}
	e.mu.Unlock()
	for _, l := range append(lanes, e.jobs.all()...) {
		l.kick()
	}
	<-ctx.Done()
	e.mu.Lock()
	e.running = nil
	e.mu.Unlock()
	e.loops.Wait()
	return nil
}

// begin has fn run beside others while the engine runs; false if it does not.
func (e *Engine) begin(fn func(ctx context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx := e.running
	if ctx == nil {
		return false
	}
	e.loops.Go(func() { fn(ctx) })
	return true
}

// Subscribe has fn called after a State, or what Follow would return, changed; it must not block.
func (e *Engine) Subscribe(fn func(key types.NamespacedName)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = append(e.listeners, fn)
}

func (e *Engine) changed(key types.NamespacedName) {
	e.mu.Lock()
	listeners := e.listeners
	e.mu.Unlock()
	for _, fn := range listeners {
		fn(key)
	}
}

// Follow begins with an object or goes on with a changed one, which is the engine's to keep. Sources
// whose trigger did not change stay as they are.
func (e *Engine) Follow(ctx context.Context, so *kedav1alpha1.ScaledObject) (activation.Followed, error) {
	key := types.NamespacedName{Namespace: so.Namespace, Name: so.Name}
	e.mu.Lock()
	o, known := e.objects[key]
	if !known {
		o = newObject(e, key)
		e.objects[key] = o
	}
	e.mu.Unlock()
	e.config.Environment.Requests.Known(key)
	followed, err := o.take(ctx, so)
	if err != nil {
		return activation.Followed{}, fmt.Errorf("following %s: %w", key, err)
	}
	if !known {
		e.config.Tell(so, corev1.EventTypeNormal, "KEDAScalersStarted", "Started scalers watch")
	}
	return followed, nil
}

// Unfollow lets go of an object; its target stays as it is.
func (e *Engine) Unfollow(key types.NamespacedName) {
	e.mu.Lock()
	o := e.objects[key]
	delete(e.objects, key)
	e.mu.Unlock()
	if o == nil {
		return
	}
	o.lane.end()
	e.config.Environment.Requests.Gone(key)
	if so := o.present(); so != nil {
		e.config.Tell(so, corev1.EventTypeNormal, "KEDAScalersStopped", "Stopped scalers watch")
	}
}

// State tells what was decided for an object; false before the first decision.
func (e *Engine) State(key types.NamespacedName) (activation.State, bool) {
	o := e.find(key)
	if o == nil {
		return activation.State{}, false
	}
	return o.shown()
}

func (e *Engine) find(key types.NamespacedName) *object {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.objects[key]
}

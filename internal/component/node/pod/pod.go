// Package pod runs one pod: it is the state machine between the API's pod and a runtime.
//
// Every pod is a goroutine that owns all of its state. Whatever takes time (a pull, a start, a probe,
// a kill) runs beside it and posts its outcome to the pod's mailbox, after which the machine takes
// its next step. An idle pod waits on its mailbox and costs nothing.
//
//	     sandbox, volumes, images          init containers        containers
//	Active ───────────────────────► created ─────────────► started ─────────► running ⟲ restarts
//	  │  delete, deadline, shutdown                                            │ all ended for good
//	  ▼                                                                        ▼
//	Stopping ── drained, hooks, signals ──► Stopped ◄──────────────────────────╯
package pod

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod/network"
	"ebb.dev/ebb/internal/component/node/pod/probe"
	"ebb.dev/ebb/internal/component/node/pod/security"
	"ebb.dev/ebb/internal/component/node/pod/volume"
)

// State is what is known about a pod before the API knows it.
type State struct {
	Pod             *corev1.Pod
	IP              netip.Addr
	Ready, Draining bool
	Stamps          map[string]time.Time // bound, sandbox, started, ready
}

// Observer learns what happens to pods at once. Calls must not block.
type Observer interface {
	PodChanged(s State)
	PodGone(uid types.UID)
}

// Drainer returns once no request is in flight to the pod, or ctx ends.
type Drainer interface {
	Drain(ctx context.Context, uid types.UID) error
}

// Objects are the config maps and secrets in use.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Use keeps what the pod refers to at hand and calls changed after each change, until release.
	Use(p *corev1.Pod, changed func()) (release func())
}

// Urgency says how soon a status should reach the API.
type Urgency time.Duration

// A status that will soon be overtaken waits a little, so that a quick start costs one write.
const (
	Now   = Urgency(0)
	Soon  = Urgency(8 * time.Millisecond)
	Later = Urgency(150 * time.Millisecond)
)

// Host is the node as its pods see it.
type Host struct {
	NodeName       string
	HostIPs        []string
	SharedIPs      []string // of pods on the host's network; HostIPs if empty
	Runtime        runtime.Runtime
	Images         runtime.Images
	Leases         Leases // nil for none
	Volumes        *volume.Mounter
	Objects        Objects
	Services       func(namespace string) []*corev1.Service
	Keychain       func(ctx context.Context, p *corev1.Pod) (authn.Keychain, error)
	Handler        func(ctx context.Context, p *corev1.Pod) (string, error) // of the pod's RuntimeClass
	Profiles       security.Profiles
	Cluster        network.Cluster
	Allocatable    corev1.ResourceList
	MemoryCapacity int64
	MaxPIDs        int64
	LogDir         string
	LogTail        func(path string, lines, bytes int) (string, error)
	Events         record.EventRecorder
	Observer       Observer
	Drainer        Drainer
	Dial           probe.Dialer
	// Changed is told that the pod's status differs from what was told before.
	Changed func(p *Pod, u Urgency)
	Log     *slog.Logger
}

type stage int

const (
	active stage = iota
	stopping
	stopped // containers and sandbox are gone
)

// Pod is one pod's machine.
type Pod struct {
	host *Host
	uid  types.UID
	log  *slog.Logger
	box  mailbox
	ctx  context.Context // ends when the node lets go of the pod; containers live on
	end  context.CancelFunc
	work sync.WaitGroup // tasks beside the loop
	done chan struct{}  // the loop has ended

	// Owned by the loop.
	pod        *corev1.Pod // as the API has it
	stage      stage
	sandbox    task[runtime.Sandbox]
	volumes    task[volume.Result]
	containers []*container // init containers first, in the pod's order
	started    time.Time    // status.startTime
	stamps     map[string]time.Time
	stop       *stop
	failure    failure // why the pod as a whole failed
	release    func()
	wake       time.Time // when the next step is due by itself
	told       State     // what the observer was told last

	leased leased

	mu       sync.Mutex // guards what follows, for readers outside the loop
	status   corev1.PodStatus
	current  *corev1.Pod
	atEnd    bool
	finished chan struct{} // closed when the pod is stopped for good
}

// failure marks the pod Failed as a whole.
type failure struct{ reason, message string }

// New makes a pod's machine and starts it. adopt is what the runtime still has of it, nil for nothing.
func New(h *Host, pod *corev1.Pod, adopt *runtime.Sandbox) *Pod {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // a pod lives until Close, longer than any call
	p := &Pod{
		host: h, uid: pod.UID, pod: pod, current: pod, ctx: ctx, end: cancel, box: newMailbox(),
		done: make(chan struct{}), finished: make(chan struct{}), stamps: map[string]time.Time{"bound": time.Now()},
		leased: leased{by: map[string]string{}},
		log:    h.Log.With("namespace", pod.Namespace, "pod", pod.Name),
	}
	p.status = *pod.Status.DeepCopy()
	p.started = time.Now()
	if pod.Status.StartTime != nil {
		p.started = pod.Status.StartTime.Time
	}
	p.makeContainers()
	p.adopt(adopt)
	p.release = h.Objects.Use(pod, func() { p.box.post(p.objectsChanged) })
	go p.loop()
	p.box.post(func() {})
	return p
}

// UID is the pod's.
func (p *Pod) UID() types.UID { return p.uid }

// Current is the pod as the API had it last, not to be changed.
func (p *Pod) Current() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// Status is the pod's present status.
func (p *Pod) Status() corev1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.status.DeepCopy()
}

// Finished is closed once nothing of the pod runs any more and its volumes are gone.
func (p *Pod) Finished() <-chan struct{} { return p.finished }

// Update tells the machine the API's newest version of the pod.
func (p *Pod) Update(pod *corev1.Pod) {
	p.box.post(func() {
		p.pod = pod
		p.mu.Lock()
		p.current = pod
		p.mu.Unlock()
		p.addEphemeral()
		if pod.DeletionTimestamp != nil {
			p.beginStop(stopDelete, graceOf(pod))
		}
		if p.stage == active {
			p.refreshVolumes()
		}
	})
}

// Delete stops the pod because its object is deleted or gone.
func (p *Pod) Delete(gone bool) {
	p.box.post(func() {
		cause := stopDelete
		if gone {
			cause = stopGone
		}
		p.beginStop(cause, graceOf(p.pod))
	})
}

// Halt stops the pod's containers and keeps its object, so that the next start of the node runs it
// again.
func (p *Pod) Halt() {
	p.box.post(func() { p.beginStop(stopShutdown, graceOf(p.pod)) })
}

// Exited tells the machine that a container ended.
func (p *Pod) Exited(c runtime.Container) { p.box.post(func() { p.exited(c) }) }

// Close ends the machine without touching what runs.
func (p *Pod) Close() {
	p.end()
	<-p.done
	p.work.Wait()
}

func (p *Pod) loop() {
	defer close(p.done)
	defer func() {
		for _, c := range p.containers {
			c.quiet()
		}
		p.release()
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.box.signal:
		case <-timer.C:
		}
		for _, fn := range p.box.take() {
			fn()
		}
		p.wake = time.Time{}
		p.step(time.Now())
		p.publish()
		if p.wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(p.wake))
		}
	}
}

// at asks for a step at that time.
func (p *Pod) at(t time.Time) {
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
}

// beside runs fn next to the loop and then what it returns inside the loop.
func (p *Pod) beside(fn func(ctx context.Context) func()) {
	p.work.Go(func() {
		if then := fn(p.ctx); then != nil {
			p.box.post(then)
		}
	})
}

func (p *Pod) event(kind, reason, message string) {
	p.host.Events.Event(p.Current(), kind, reason, message)
}

// mailbox is an unbounded queue of what the loop should do next; posting never blocks.
type mailbox struct {
	mu     *sync.Mutex // guards fns
	fns    *[]func()
	signal chan struct{}
}

func newMailbox() mailbox {
	return mailbox{mu: &sync.Mutex{}, fns: &[]func(){}, signal: make(chan struct{}, 1)}
}

func (b mailbox) post(fn func()) {
	b.mu.Lock()
	*b.fns = append(*b.fns, fn)
	b.mu.Unlock()
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

func (b mailbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	fns := *b.fns
	*b.fns = nil
	return fns
}

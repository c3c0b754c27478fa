// Package node is a Kubernetes node whose pods run on a Runtime: it registers itself, runs the pods
// bound to it, reports what they do, and answers the API server as a kubelet would.
//
// It stands on the virtual-kubelet library for the node object, the lease and the hand-over of pods,
// with queues that are not throttled. Everything a kubelet does with a pod is in node/pod. A second
// path of our own compares the pods we run with those the API has, so that neither a lost event nor
// a used-up retry leaves anything behind.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/garbage"
	"ebb.dev/ebb/internal/component/node/object"
	"ebb.dev/ebb/internal/component/node/pod"
	"ebb.dev/ebb/internal/component/node/pod/probe"
	"ebb.dev/ebb/internal/component/node/stats"
	"ebb.dev/ebb/internal/component/node/storage"
)

// PodState, Observer and Drainer are the pods' seams to the rest of ebb.
type (
	// PodState is what is known about a pod before the API knows it.
	PodState = pod.State
	// Observer learns what happens to pods at once. Calls must not block.
	Observer = pod.Observer
	// Drainer returns once no request is in flight to the pod, or ctx ends.
	Drainer = pod.Drainer
	// Leases keep images on the node for as long as containers use them.
	Leases = garbage.Store
)

// Config says what a node is made of.
type Config struct {
	Name     string // of the node
	Version  string // of ebb, shown as the container runtime's
	Client   kubernetes.Interface
	Runtime  runtime.Runtime
	Handlers []string // RuntimeClass handlers the runtime knows besides the default
	Images   runtime.Images
	// Leases keep the images of containers; nil keeps none.
	Leases Leases
	// ImagesDir is where images are. With leases, those that nobody uses go when its disk is nearly full.
	ImagesDir string
	// Address is the node's, where pods and the API server reach it.
	Address netip.Addr
	// HostAddress is the machine's own, for pods on its network; Address when unset.
	HostAddress   netip.Addr
	DNS           netip.Addr
	ClusterDomain string // "cluster.local" when empty
	DataDir       string // volumes, logs and persistent volumes live in it
	// Listen is where the kubelet API is served with TLS; nil serves none.
	Listen net.Listener
	TLS    *tls.Config
	// ClientCA verifies client certificates; requests without one need a bearer token. Either must
	// be allowed nodes/proxy and the like by RBAC.
	ClientCA []byte
	// Capacity overrides what the machine has.
	Capacity corev1.ResourceList
	MaxPods  int64 // 500 when 0
	Observer Observer
	Drainer  Drainer
	// Seccomp is the runtime's default profile for a set of capabilities; nil means none.
	Seccomp func(capabilities []string) (*specs.LinuxSeccomp, error)
	Dial    probe.Dialer // how probes reach pods; nil dials from here
	Log     *slog.Logger
}

// Node runs the pods bound to it.
type Node struct {
	config   Config
	host     *pod.Host
	objects  *object.Cache
	tokens   *object.Tokens
	pods     corelisters.PodLister
	services corelisters.ServiceLister
	informer cache.SharedIndexInformer
	synced   []cache.InformerSynced
	start    func(stop <-chan struct{}) // starts the informers
	events   *recorder
	writer   *writer
	status   *status
	stats    *stats.Collector
	garbage  *garbage.Collector // nil when images stay
	ready    chan struct{}
	ctx      context.Context // of all that follows the API
	cancel   context.CancelFunc

	mu       sync.Mutex // guards what follows
	machines map[types.UID]*pod.Pod
	stopping bool
}

// New prepares a node; nothing happens before Run.
func New(c Config) (*Node, error) {
	if c.Client == nil || c.Runtime == nil || c.Images == nil || c.Log == nil {
		return nil, errors.New("making a node: client, runtime, images and log are needed")
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.MaxPods == 0 {
		c.MaxPods = defaultMaxPods
	}
	// What follows the API lives until Run ends, which has a context of its own.
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // there is no caller's context to pass on
	n := &Node{
		config: c, ready: make(chan struct{}), ctx: ctx, cancel: cancel, machines: map[types.UID]*pod.Pod{},
		objects: object.New(ctx, c.Client, c.Log), tokens: object.NewTokens(c.Client),
	}
	n.informers()
	n.events = newRecorder(c.Client, c.Name)
	n.writer = newWriter(n)
	var err error
	if n.status, err = newStatus(c); err != nil {
		cancel()
		return nil, err
	}
	n.host = n.newHost()
	n.collectImages()
	n.stats = &stats.Collector{Node: c.Name, DataDir: c.DataDir, Source: measured{n}}
	return n, nil
}

func (n *Node) informers() {
	own := informers.NewSharedInformerFactoryWithOptions(n.config.Client, 0, informers.WithTweakListOptions(ofNode(n.config.Name)))
	all := informers.NewSharedInformerFactory(n.config.Client, 0)
	pods, services := own.Core().V1().Pods(), all.Core().V1().Services()
	n.informer, n.pods, n.services = pods.Informer(), pods.Lister(), services.Lister()
	n.synced = []cache.InformerSynced{n.informer.HasSynced, services.Informer().HasSynced}
	n.start = func(stop <-chan struct{}) { own.Start(stop); all.Start(stop) }
}

func podField(name string) string { return fields.OneTermEqualSelector("spec.nodeName", name).String() }

// Ready is closed once the node is registered and takes pods.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run registers the node, takes over what still runs of its pods, and runs pods until ctx ends or
// something fails. It then lets go without stopping any container; see Stop.
func (n *Node) Run(caller context.Context) error {
	defer n.cancel()
	defer n.events.stop()
	unhook := context.AfterFunc(caller, n.cancel)
	defer unhook()
	ctx := n.ctx
	sandboxes, err := n.config.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("listing what still runs: %w", err)
	}
	n.start(ctx.Done())
	g, ctx := errgroup.WithContext(ctx)
	// The node object does not depend on the pods: it registers while they are listed.
	registered := make(chan struct{})
	g.Go(func() error { return n.runNode(ctx, registered) })
	if !cache.WaitForCacheSync(ctx.Done(), n.synced...) {
		n.cancel()
		err := g.Wait()
		if caller.Err() != nil {
			return nil
		}
		return fmt.Errorf("listing pods and services: %w", errors.Join(err, context.Cause(ctx)))
	}
	n.adopt(ctx, sandboxes)
	controller, err := n.podController()
	if err != nil {
		n.cancel()
		return errors.Join(err, g.Wait())
	}
	g.Go(func() error { n.dispatch(ctx); return nil })
	g.Go(func() error { n.writer.run(ctx); return nil })
	g.Go(func() error { return controller.Run(ctx, podWorkers) })
	g.Go(func() error { return n.reconcile(ctx) })
	g.Go(func() error { return storage.Run(ctx, n.storage()) })
	g.Go(func() error { return n.collect(ctx) })
	g.Go(func() error { return n.serve(ctx) })
	g.Go(func() error { return n.runtimeClasses(ctx) })
	g.Go(func() error {
		for _, c := range []<-chan struct{}{registered, controller.Ready()} {
			select {
			case <-c:
			case <-ctx.Done():
				return nil
			}
		}
		close(n.ready)
		return nil
	})
	err = g.Wait()
	n.letGo()
	if err == nil || errors.Is(err, context.Canceled) {
		<-caller.Done() // after Stop there is nothing to do, which is no failure
		return nil
	}
	return err
}

// dispatch hands the ends of containers to their pods.
func (n *Node) dispatch(ctx context.Context) {
	exits := n.config.Runtime.Exits()
	for {
		select {
		case <-ctx.Done():
			return
		case c, ok := <-exits:
			if !ok {
				return
			}
			if m := n.machine(types.UID(c.SandboxID)); m != nil {
				m.Exited(c)
			}
		}
	}
}

// Stop drains and stops all pods and keeps their objects, so that the next start runs them again.
// The node does nothing afterwards, and Run returns when its context ends.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()
	machines := n.all()
	for _, m := range machines {
		m.Halt()
	}
	var err error
	for _, m := range machines {
		select {
		case <-m.Finished():
		case <-ctx.Done():
			err = fmt.Errorf("stopping the node's pods: %w", ctx.Err())
		}
		if err != nil {
			break
		}
	}
	n.writer.flush(ctx)
	n.cancel()
	return err
}

// letGo ends the machines without touching what runs.
func (n *Node) letGo() {
	var wg sync.WaitGroup
	for _, m := range n.all() {
		wg.Go(m.Close)
	}
	wg.Wait()
}

func (n *Node) machine(uid types.UID) *pod.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machines[uid]
}

func (n *Node) storage() storage.Config {
	return storage.Config{Client: n.config.Client, Node: n.config.Name, Dir: n.storageDir(), Events: n.events, Log: n.config.Log}
}

// Folders below DataDir.
func (n *Node) podDir() string     { return filepath.Join(n.config.DataDir, "pods") }
func (n *Node) logDir() string     { return filepath.Join(n.config.DataDir, "logs") }
func (n *Node) storageDir() string { return filepath.Join(n.config.DataDir, "volumes") }

// sweepEvery is how often the pods we run are compared with the API's, all in memory.
const sweepEvery = 30 * time.Second

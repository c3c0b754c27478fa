// Package proxy makes Services reachable: by ClusterIP, NodePort, load-balancer address and
// external IPs, for pods and for the host alike.
//
// Every address of a Service is local to ebb's network namespace, so a Service port is a listener
// there and a connection is carried to a ready endpoint by copying. A port without endpoints has no
// listener: the kernel refuses at once and idle Services cost nothing.
//
//	Service, EndpointSlices ─► plan (pure) ─► fronts ─► listener ─► balancer ─► endpoint
//	                                                └─► in-process handler (the gateway's Service)
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// A Network is where Services' addresses are local; *netns.Net is one.
type Network interface {
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	// Claim makes one more address local, Disclaim undoes it.
	Claim(addr netip.Addr) error
	Disclaim(addr netip.Addr) error
}

// Config says what to serve and where.
type Config struct {
	Net       Network
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory // started by the caller after New

	NodeName      string
	NodeIP        netip.Addr   // where NodePorts listen
	LoadBalancers netip.Prefix // each Service of type LoadBalancer gets an address of its own from it

	// Local serves ports of Services in this process, without endpoints or a further hop. The
	// handler owns the connection and must not block for longer than handing it on takes.
	Local map[types.NamespacedName]map[int32]func(net.Conn)

	Events     record.EventRecorder  // may be nil
	Registerer prometheus.Registerer // may be nil
	Log        *slog.Logger
}

// sliceIndex finds EndpointSlices by their Service.
const sliceIndex = "ebb.dev/proxy.service"

// Proxy keeps fronts in step with Services and EndpointSlices.
type Proxy struct {
	cfg      Config
	log      *slog.Logger
	services corelisters.ServiceLister
	slices   cache.Indexer
	synced   []cache.InformerSynced
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
	balance  *addresses
	flows    *flowLimit
	metrics  *metrics

	mu    sync.Mutex // guards state; sync runs one key at a time
	state map[types.NamespacedName]*serving
}

// New registers with the informers; nothing happens before Run.
func New(c Config) (*Proxy, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	svc := c.Informers.Core().V1().Services()
	eps := c.Informers.Discovery().V1().EndpointSlices()
	p := &Proxy{
		cfg:      c,
		log:      c.Log,
		services: svc.Lister(),
		slices:   eps.Informer().GetIndexer(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 30*time.Second)),
		balance: newAddresses(c.LoadBalancers),
		flows:   &flowLimit{max: maxFlows},
		state:   map[types.NamespacedName]*serving{},
	}
	var err error
	if p.metrics, err = newMetrics(c.Registerer); err != nil {
		return nil, fmt.Errorf("registering proxy metrics: %w", err)
	}
	if err := eps.Informer().AddIndexers(cache.Indexers{sliceIndex: bySliceOwner}); err != nil {
		return nil, fmt.Errorf("indexing endpoint slices: %w", err)
	}
	for _, in := range []struct {
		informer cache.SharedIndexInformer
		key      func(any) (types.NamespacedName, bool)
	}{{svc.Informer(), serviceKey}, {eps.Informer(), sliceKey}} {
		reg, err := in.informer.AddEventHandler(p.enqueue(in.key))
		if err != nil {
			return nil, fmt.Errorf("watching services: %w", err)
		}
		p.synced = append(p.synced, reg.HasSynced)
	}
	return p, nil
}

// bySliceOwner is the index function of sliceIndex.
func bySliceOwner(obj any) ([]string, error) {
	key, ok := sliceKey(obj)
	if !ok {
		return nil, nil
	}
	return []string{key.String()}, nil
}

func sliceKey(obj any) (types.NamespacedName, bool) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}, true
}

func serviceKey(obj any) (types.NamespacedName, bool) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}, true
}

// enqueue turns every change of an object into its Service's key.
func (p *Proxy) enqueue(key func(any) (types.NamespacedName, bool)) cache.ResourceEventHandler {
	add := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if k, ok := key(obj); ok {
			p.queue.Add(k)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    add,
		UpdateFunc: func(before, now any) { add(before); add(now) },
		DeleteFunc: add,
	}
}

// Run serves until ctx ends and then closes every listener; connections in flight go on.
func (p *Proxy) Run(ctx context.Context) error {
	defer p.closeAll()
	if !cache.WaitForCacheSync(ctx.Done(), p.synced...) {
		return context.Cause(ctx)
	}
	if err := p.adoptAddresses(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, p.queue.ShutDown)
	defer stop()
	for {
		key, closing := p.queue.Get()
		if closing {
			return nil
		}
		if err := p.sync(ctx, key); err != nil {
			p.log.WarnContext(ctx, "serving a Service", "service", key.String(), "error", err)
			p.queue.AddRateLimited(key)
		} else {
			p.queue.Forget(key)
		}
		p.queue.Done(key)
	}
}

// sync brings one Service's fronts in step with what the informers know.
func (p *Proxy) sync(ctx context.Context, key types.NamespacedName) error {
	svc, err := p.services.Services(key.Namespace).Get(key.Name)
	if err != nil { // the only error of a lister: it is not there
		for _, waiting := range p.balance.release(key) {
			p.queue.Add(waiting)
		}
		return p.apply(ctx, key, nil, nil)
	}
	own, balanceErr := p.assignAddress(ctx, svc)
	objs, err := p.slices.ByIndex(sliceIndex, key.String())
	if err != nil {
		return fmt.Errorf("finding endpoint slices: %w", err)
	}
	slices := make([]*discoveryv1.EndpointSlice, 0, len(objs))
	for _, o := range objs {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			slices = append(slices, s)
		}
	}
	plan := planner{node: p.cfg.NodeName, nodeIP: p.cfg.NodeIP, balancer: own, local: p.cfg.Local[key]}.plan(svc, slices)
	for _, port := range plan.unsupported {
		p.event(svc, "UnsupportedProtocol", fmt.Sprintf("port %d: protocol %s is not served by ebb; use TCP or UDP", port.Port, port.Protocol))
	}
	return errors.Join(balanceErr, p.apply(ctx, key, svc, plan.fronts))
}

// event tells the user of a Service what it did not get.
func (p *Proxy) event(svc *corev1.Service, reason, message string) {
	if p.cfg.Events != nil {
		p.cfg.Events.Event(svc, corev1.EventTypeWarning, reason, message)
	}
}

// closeAll closes every listener.
func (p *Proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, s := range p.state {
		for at := range s.fronts {
			p.closeFront(s, at)
		}
		if s.health != nil {
			_ = s.health.server.Close()
		}
		delete(p.state, key)
	}
}

// Package roster keeps the fleet's view of the instances behind routes to Services: the endpoints of
// the Service's port.
//
// The API's EndpointSlices tell them. What the node in this process knows of a pod goes before that,
// since it knows first: an endpoint is there as soon as its pod is ready, and not when the control
// plane has written so.
//
//	route table ─► routes ──┐
//	Services, EndpointSlices ┼─► reckon ─► difference ─► fleet
//	node ─► pods ───────────┘
package roster

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
)

// sliceIndex finds EndpointSlices by their Service.
const sliceIndex = "roster-service"

// keptGone bounds how many pods are remembered to be gone while the API still lists them.
const keptGone = 1024

// A Pod is what the node in this process knows of one.
type Pod struct {
	Object          *corev1.Pod
	IP              netip.Addr
	Ready, Draining bool
	Stamps          map[string]time.Time
}

// A Roster follows the Services that routes lead to. Its methods are safe for concurrent use and do
// not block.
type Roster struct {
	fleet *fleet.Fleet

	mu       sync.Mutex // guards all below; held while the fleet is told, so that changes stay in order
	services corelisters.ServiceLister
	slices   cache.Indexer
	routes   map[types.NamespacedName]*route                       // by pseudo-revision
	byName   map[string]map[string]map[types.NamespacedName]*route // by their Service's namespace and name
	pods     map[string]map[types.UID]Pod                          // by namespace
	gone     []types.UID                                           // ring of pods that the node says are gone
	goneAt   int
	born     uint64 // instances so far
}

// route is a pseudo-revision whose instances are followed.
type route struct {
	rev   types.NamespacedName
	to    traffic.Service
	shown map[identity]fleet.Instance
}

// New returns a Roster without routes, which sees the cluster once it Watches.
func New(f *fleet.Fleet) *Roster {
	return &Roster{
		fleet: f, routes: map[types.NamespacedName]*route{}, byName: map[string]map[string]map[types.NamespacedName]*route{},
		pods: map[string]map[types.UID]Pod{},
	}
}

// Watch has the Roster see Services and their EndpointSlices, before the informers are started.
func (r *Roster) Watch(factory informers.SharedInformerFactory) error {
	services, all := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	if err := all.Informer().AddIndexers(cache.Indexers{sliceIndex: func(object any) ([]string, error) {
		s, ok := object.(*discoveryv1.EndpointSlice)
		if !ok || s.Labels[discoveryv1.LabelServiceName] == "" {
			return nil, nil
		}
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
	}}); err != nil {
		return fmt.Errorf("indexing endpoint slices: %w", err)
	}
	r.mu.Lock()
	r.services, r.slices = services.Lister(), all.Informer().GetIndexer()
	r.mu.Unlock()
	if _, err := services.Informer().AddEventHandler(r.hear(func(object any) (namespace, name string) {
		if s, ok := object.(*corev1.Service); ok {
			return s.Namespace, s.Name
		}
		return "", ""
	})); err != nil {
		return fmt.Errorf("watching Services: %w", err)
	}
	if _, err := all.Informer().AddEventHandler(r.hear(func(object any) (namespace, name string) {
		if s, ok := object.(*discoveryv1.EndpointSlice); ok {
			return s.Namespace, s.Labels[discoveryv1.LabelServiceName]
		}
		return "", ""
	})); err != nil {
		return fmt.Errorf("watching endpoint slices: %w", err)
	}
	return nil
}

// hear looks again at the Service that a changed object is about.
func (r *Roster) hear(about func(object any) (namespace, name string)) cache.ResourceEventHandler {
	look := func(object any) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		namespace, name := about(object)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, to := range r.byName[namespace][name] {
			r.refresh(to)
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: look, UpdateFunc: func(_, object any) { look(object) }, DeleteFunc: look}
}

// SetTable follows the Services of a table's pseudo-revisions from now on.
func (r *Roster) SetTable(t *traffic.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[types.NamespacedName]bool{}
	for rev, settings := range t.Revisions {
		if settings.Service == nil {
			continue
		}
		wanted[rev] = true
		now := r.routes[rev]
		if now != nil && now.to.Name == settings.Service.Name && now.to.Port == settings.Service.Port && now.to.PortName == settings.Service.PortName {
			continue
		}
		if now == nil {
			now = &route{rev: rev, shown: map[identity]fleet.Instance{}}
			r.routes[rev] = now
		} else {
			r.unlist(now)
		}
		now.to = *settings.Service
		r.list(now)
		r.refresh(now)
	}
	for rev, old := range r.routes {
		if !wanted[rev] {
			r.unlist(old)
			delete(r.routes, rev)
			r.show(old, nil)
		}
	}
}

// list has a route found by its Service; mu is held.
func (r *Roster) list(t *route) {
	in := r.byName[t.to.Name.Namespace]
	if in == nil {
		in = map[string]map[types.NamespacedName]*route{}
		r.byName[t.to.Name.Namespace] = in
	}
	if in[t.to.Name.Name] == nil {
		in[t.to.Name.Name] = map[types.NamespacedName]*route{}
	}
	in[t.to.Name.Name][t.rev] = t
}

// unlist is the opposite of list; mu is held.
func (r *Roster) unlist(t *route) {
	in := r.byName[t.to.Name.Namespace]
	delete(in[t.to.Name.Name], t.rev)
	if len(in[t.to.Name.Name]) == 0 {
		delete(in, t.to.Name.Name)
	}
	if len(in) == 0 {
		delete(r.byName, t.to.Name.Namespace)
	}
}

// PodChanged takes in what the node says of a pod.
func (r *Roster) PodChanged(p Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.pods[p.Object.Namespace]
	if in == nil {
		in = map[types.UID]Pod{}
		r.pods[p.Object.Namespace] = in
	}
	in[p.Object.UID] = p
	r.touch(p)
}

// PodGone says that the node has a pod no more.
func (r *Roster) PodGone(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for namespace, in := range r.pods {
		p, ok := in[uid]
		if !ok {
			continue
		}
		if delete(in, uid); len(in) == 0 {
			delete(r.pods, namespace)
		}
		if len(r.gone) < keptGone {
			r.gone = append(r.gone, uid)
		} else {
			r.gone[r.goneAt] = uid
			r.goneAt = (r.goneAt + 1) % keptGone
		}
		r.touch(p)
		return
	}
}

// touch looks again at the routes that a pod may stand behind; mu is held.
func (r *Roster) touch(p Pod) {
	for name, routes := range r.byName[p.Object.Namespace] {
		svc := r.service(types.NamespacedName{Namespace: p.Object.Namespace, Name: name})
		for _, t := range routes {
			if t.has(p.Object.UID) || selects(svc, p.Object) {
				r.refresh(t)
			}
		}
	}
}

func (t *route) has(uid types.UID) bool {
	for id := range t.shown {
		if id.uid == uid {
			return true
		}
	}
	return false
}

// Instances names a pod's instances in the fleet: one for each route that leads there.
func (r *Roster) Instances(uid types.UID) []types.UID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []types.UID
	for _, t := range r.routes {
		for id := range t.shown {
			if id.uid == uid {
				out = append(out, t.shown[id].ID)
			}
		}
	}
	return out
}

// service returns a Service, nil if there is none; mu is held.
func (r *Roster) service(name types.NamespacedName) *corev1.Service {
	if r.services == nil {
		return nil
	}
	svc, err := r.services.Services(name.Namespace).Get(name.Name)
	if err != nil {
		return nil // a lister knows no other error than that it is not there
	}
	return svc
}

// refresh brings a route's instances up to date; mu is held.
func (r *Roster) refresh(t *route) {
	svc := r.service(t.to.Name)
	if svc == nil {
		r.show(t, nil)
		return
	}
	var known []*discoveryv1.EndpointSlice
	if objects, err := r.slices.ByIndex(sliceIndex, t.to.Name.String()); err == nil { // the index is there
		for _, o := range objects {
			if s, ok := o.(*discoveryv1.EndpointSlice); ok {
				known = append(known, s)
			}
		}
	}
	slices.SortFunc(known, func(a, b *discoveryv1.EndpointSlice) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	r.show(t, reckon(sight{
		service: svc, to: t.to, slices: known, pods: r.pods[t.to.Name.Namespace],
		gone: func(uid types.UID) bool { return slices.Contains(r.gone, uid) },
	}))
}

// show has the fleet hold these instances of a route; mu is held. One that comes back is another: the
// fleet believes that what is gone stays away.
func (r *Roster) show(t *route, want []endpoint) {
	wanted := make(map[identity]bool, len(want))
	for _, e := range want {
		wanted[e.identity] = true
		in, shown := t.shown[e.identity]
		if !shown {
			r.born++
			in = fleet.Instance{ID: types.UID(strconv.FormatUint(r.born, 36) + "@" + string(e.uid)), Revision: t.rev, Address: e.address, H2C: e.h2c}
		}
		in.Pod, in.Ready, in.Draining, in.Stamps = e.pod, e.ready, e.draining, e.stamps
		t.shown[e.identity] = in
		r.fleet.Observe(fleet.Local, in)
	}
	for id, in := range t.shown {
		if !wanted[id] {
			delete(t.shown, id)
			r.fleet.Remove(fleet.Local, in.ID)
		}
	}
}

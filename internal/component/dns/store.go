package dns

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// serviceLabel names the Service an EndpointSlice belongs to.
const serviceLabel = discoveryv1.LabelServiceName

// Indexes of the informers, beside the listers' own.
const (
	byService = "ebb.dev/dns.service"
	byAddress = "ebb.dev/dns.address"
)

// informed is the Store the informers keep.
type informed struct {
	services   corelisters.ServiceLister
	namespaces corelisters.NamespaceLister
	byIP       cache.Indexer // Services
	slices     cache.Indexer
	pods       cache.Indexer
	synced     []cache.InformerSynced
}

func newInformed(f informers.SharedInformerFactory) (*informed, error) {
	core := f.Core().V1()
	services, slices, pods, namespaces := core.Services(), f.Discovery().V1().EndpointSlices(), core.Pods(), core.Namespaces()
	for _, in := range []struct {
		informer cache.SharedIndexInformer
		indexers cache.Indexers
	}{
		{services.Informer(), cache.Indexers{byAddress: serviceAddresses}},
		{slices.Informer(), cache.Indexers{byAddress: sliceAddresses, byService: sliceService}},
		{pods.Informer(), cache.Indexers{byAddress: podAddresses}},
	} {
		if err := in.informer.AddIndexers(in.indexers); err != nil {
			return nil, fmt.Errorf("indexing for DNS: %w", err)
		}
	}
	return &informed{
		services:   services.Lister(),
		namespaces: namespaces.Lister(),
		byIP:       services.Informer().GetIndexer(),
		slices:     slices.Informer().GetIndexer(),
		pods:       pods.Informer().GetIndexer(),
		synced: []cache.InformerSynced{
			services.Informer().HasSynced, slices.Informer().HasSynced, pods.Informer().HasSynced, namespaces.Informer().HasSynced,
		},
	}, nil
}

// wait returns once the informers know the cluster, or false if ctx ends before.
func (s *informed) wait(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), s.synced...)
}

func serviceAddresses(obj any) ([]string, error) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil, nil
	}
	found := append([]string(nil), svc.Spec.ClusterIPs...)
	if len(found) == 0 && svc.Spec.ClusterIP != "" {
		found = append(found, svc.Spec.ClusterIP)
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			found = append(found, in.IP)
		}
	}
	return found, nil
}

func sliceAddresses(obj any) ([]string, error) {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[serviceLabel] == "" {
		return nil, nil
	}
	var found []string
	for _, e := range s.Endpoints {
		found = append(found, e.Addresses...)
	}
	return found, nil
}

func sliceService(obj any) ([]string, error) {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[serviceLabel] == "" {
		return nil, nil
	}
	return []string{s.Namespace + "/" + s.Labels[serviceLabel]}, nil
}

func podAddresses(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Status.PodIP == "" || pod.Spec.HostNetwork {
		return nil, nil
	}
	return []string{pod.Status.PodIP}, nil
}

// Service finds a Service by name.
func (s *informed) Service(namespace, name string) (*corev1.Service, bool) {
	svc, err := s.services.Services(namespace).Get(name)
	return svc, err == nil
}

// HasNamespace tells whether the namespace exists.
func (s *informed) HasNamespace(name string) bool {
	_, err := s.namespaces.Get(name)
	return err == nil
}

// Slices lists a Service's EndpointSlices.
func (s *informed) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	return indexed[discoveryv1.EndpointSlice](s.slices, byService, namespace+"/"+service)
}

// Owner names what has an address.
func (s *informed) Owner(addr netip.Addr) Owner {
	var o Owner
	if found := indexed[corev1.Service](s.byIP, byAddress, addr.String()); len(found) > 0 {
		o.Service = found[0]
	}
	o.Slices = indexed[discoveryv1.EndpointSlice](s.slices, byAddress, addr.String())
	if found := indexed[corev1.Pod](s.pods, byAddress, addr.String()); len(found) > 0 {
		o.Pod = found[0]
	}
	return o
}

// indexed reads an index as the type it holds.
func indexed[T any](in cache.Indexer, index, key string) []*T {
	objs, err := in.ByIndex(index, key)
	if err != nil {
		return nil // the index was registered by New
	}
	found := make([]*T, 0, len(objs))
	for _, o := range objs {
		if t, ok := o.(*T); ok {
			found = append(found, t)
		}
	}
	return found
}

package node

import (
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// podInformer lets the library share the node's own informer of pods.
type podInformer struct {
	coreinformers.PodInformer
	n *Node
}

// Informer implements PodInformer.
func (p podInformer) Informer() cache.SharedIndexInformer { return p.n.informer }

// Lister implements PodInformer.
func (p podInformer) Lister() corelisters.PodLister { return p.n.pods }

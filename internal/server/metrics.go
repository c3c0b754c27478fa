package server

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"ebb.dev/ebb/internal/component/metricsapi"
	"ebb.dev/ebb/internal/component/node"
)

// errStarting is what metrics answer until there is a node.
var errStarting = errors.New("the node is still starting")

// measured is where metrics.k8s.io looks: at nothing until the node is there. The API itself must
// answer from the first moment, since discovery of all others waits for it.
type measured struct {
	node atomic.Pointer[node.Node]
	pods atomic.Pointer[listers]
}

// listers answer from informers' memory.
type listers struct {
	pods  corelisters.PodLister
	nodes corelisters.NodeLister
}

// metricsHandler serves metrics.k8s.io.
func (s *Server) metricsHandler() (http.Handler, error) {
	return metricsapi.New(metricsapi.Config{
		Sources: []metricsapi.Source{&s.measured}, Objects: &s.measured, Log: s.log.With("part", "metrics"),
	})
}

// Summary implements metricsapi.Source.
func (m *measured) Summary(ctx context.Context) (*stats.Summary, error) {
	n := m.node.Load()
	if n == nil {
		return nil, errStarting
	}
	return n.Summary(ctx)
}

// Pods implements metricsapi.Objects.
func (m *measured) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	l := m.pods.Load()
	switch {
	case l == nil:
		return nil, errStarting
	case namespace == "":
		return l.pods.List(selector)
	default:
		return l.pods.Pods(namespace).List(selector)
	}
}

// Nodes implements metricsapi.Objects.
func (m *measured) Nodes(selector labels.Selector) ([]*corev1.Node, error) {
	l := m.pods.Load()
	if l == nil {
		return nil, errStarting
	}
	return l.nodes.List(selector)
}

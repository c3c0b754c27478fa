package server

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"ebb.dev/ebb/internal/component/metricsapi"
)

// serveMetrics fills in the handler behind metrics.k8s.io.
func (s *Server) serveMetrics() error {
	core := s.informers.Core().V1()
	handler, err := metricsapi.New(metricsapi.Config{
		Sources: []metricsapi.Source{s.node},
		Objects: listed{core.Pods().Lister(), core.Nodes().Lister()},
		Log:     s.log.With("part", "metrics"),
	})
	if err != nil {
		return err
	}
	s.metrics.set(handler)
	return nil
}

// listed answers from informers' memory.
type listed struct {
	pods  corelisters.PodLister
	nodes corelisters.NodeLister
}

// Pods implements metricsapi.Objects.
func (l listed) Pods(namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	if namespace == "" {
		return l.pods.List(selector)
	}
	return l.pods.Pods(namespace).List(selector)
}

// Nodes implements metricsapi.Objects.
func (l listed) Nodes(selector labels.Selector) ([]*corev1.Node, error) {
	return l.nodes.List(selector)
}

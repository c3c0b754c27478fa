// Package workload counts the pods of a workload, or the nodes they run on.
package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"ebb.dev/ebb/internal/adapter/trigger"
)

// gather is how long changes of pods are collected before they are counted: a rollout changes a pod
// several times in a row.
const gather = 10 * time.Millisecond

type parameters struct {
	PodSelector     string  `keda:"name=podSelector,     order=triggerMetadata"`
	Value           float64 `keda:"name=value,           order=triggerMetadata, default=0"`
	ActivationValue float64 `keda:"name=activationValue, order=triggerMetadata, default=0"`
	GroupByNode     bool    `keda:"name=groupByNode,     order=triggerMetadata, default=false"`
	TriggerIndex    int
}

type source struct {
	trigger.Single
	parameters

	namespace string
	selector  labels.Selector
	objects   trigger.Objects
}

// New makes a Source of type kubernetes-workload.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{namespace: c.ScalableObjectNamespace, objects: c.Objects}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	if s.Value <= 0 && !c.AsMetricSource {
		return nil, errors.New("value must be a float greater than 0")
	}
	if s.selector, err = labels.Parse(s.PodSelector); err != nil {
		return nil, fmt.Errorf("parsing podSelector: %w", err)
	}
	if c.Objects == nil {
		return nil, errors.New("counting pods: there is no cluster to count in")
	}
	s.Name = trigger.Name(c.TriggerIndex, "workload-"+s.namespace)
	s.Target, s.Activation = trigger.Quantity(s.Value), s.ActivationValue
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(context.Context) ([]trigger.Reading, error) {
	n, err := s.count()
	if err != nil {
		return nil, err
	}
	return s.Reading(float64(n)), nil
}

func (s *source) count() (int, error) {
	pods, err := s.objects.Pods(s.namespace, s.selector)
	if err != nil {
		return 0, fmt.Errorf("counting pods of %s: %w", s.namespace, err)
	}
	running := 0
	nodes := map[string]struct{}{}
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		running++
		if s.GroupByNode && pod.Spec.NodeName != "" {
			nodes[pod.Spec.NodeName] = struct{}{}
		}
	}
	if s.GroupByNode {
		return len(nodes), nil
	}
	return running, nil
}

// Watch implements trigger.Pusher. It wakes only when the count is another one, since most changes
// of a namespace's pods are not.
func (s *source) Watch(_ trigger.Mode, wake func()) (stop func()) {
	w := &watch{source: s, wake: wake, last: -1}
	if n, err := s.count(); err == nil {
		w.last = n
	}
	unwatch := s.objects.WatchPods(s.namespace, w.changed)
	w.changed() // what changed between the count and the watch
	return func() {
		unwatch()
		w.stop()
	}
}

// Close implements trigger.Source.
func (s *source) Close() error { return nil }

// A watch is one Watch of a source.
type watch struct {
	source *source
	wake   func()

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	last    int
	stopped bool
}

func (w *watch) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil && !w.stopped {
		w.timer = time.AfterFunc(gather, w.look)
	}
}

// look wakes when the count changed. Without a count it wakes, for Read to tell why.
func (w *watch) look() {
	w.mu.Lock()
	w.timer = nil
	w.mu.Unlock()
	n, err := w.source.count()
	if err != nil {
		n = -1
	}
	w.mu.Lock()
	differs := n != w.last && !w.stopped
	w.last = n
	w.mu.Unlock()
	if differs {
		w.wake()
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/kubeletapi"
	"ebb.dev/ebb/internal/component/node/logs"
	"ebb.dev/ebb/internal/component/node/pod"
	"ebb.dev/ebb/internal/component/node/stats"
)

// all are the machines there are now.
func (n *Node) all() []*pod.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*pod.Pod, 0, len(n.machines))
	for _, m := range n.machines {
		out = append(out, m)
	}
	return out
}

// source answers the kubelet API for the node's pods.
type source struct{ n *Node }

// find returns the API's pod of that name and its machine, which a finished pod may not have.
func (s source) find(namespace, name string) (*corev1.Pod, *pod.Pod, error) {
	p, err := s.n.pods.Pods(namespace).Get(name)
	if err == nil {
		return p, s.n.machine(p.UID), nil
	}
	// Its object may be gone while its containers still end.
	for _, m := range s.n.all() {
		if p := m.Current(); p.Namespace == namespace && p.Name == name {
			return p, m, nil
		}
	}
	return nil, nil, fmt.Errorf("pod %q does not exist: %w", name, kubeletapi.ErrNotFound)
}

// Logs implements kubeletapi.Source.
func (s source) Logs(ctx context.Context, r kubeletapi.LogRequest, begin func(), w io.Writer) error {
	p, m, err := s.find(r.Namespace, r.Pod)
	if err != nil {
		return err
	}
	var path string
	var complete <-chan struct{}
	if m != nil {
		path, complete, err = m.Log(ctx, r.Container, r.Previous)
	} else {
		path, complete, err = s.finishedLog(p, r)
	}
	switch {
	case errors.Is(err, pod.ErrNoContainer), errors.Is(err, pod.ErrNotStarted):
		return fmt.Errorf("%w: %w", kubeletapi.ErrBadRequest, err)
	case err != nil:
		return err
	}
	l, err := logs.Open(path)
	if err != nil {
		return fmt.Errorf("%w: the log of container %q is not here any more: %w", kubeletapi.ErrBadRequest, r.Container, err)
	}
	defer l.Close()
	begin()
	return l.Copy(ctx, logs.Options{Follow: r.Follow, Timestamps: r.Timestamps, Since: r.Since, Tail: r.Tail, Limit: r.Limit, Stream: r.Stream},
		complete, w)
}

// finishedLog finds the log of a pod that ended before this process began.
func (s source) finishedLog(p *corev1.Pod, r kubeletapi.LogRequest) (string, <-chan struct{}, error) {
	all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses)
	i := slices.IndexFunc(all, func(c corev1.ContainerStatus) bool { return c.Name == r.Container })
	if i < 0 {
		return "", nil, fmt.Errorf("container %s is not valid for pod %s: %w", r.Container, p.Name, pod.ErrNoContainer)
	}
	attempt := int(all[i].RestartCount)
	if r.Previous {
		attempt--
	}
	if attempt < 0 || all[i].ContainerID == "" {
		return "", nil, fmt.Errorf("container %q in pod %q: %w", r.Container, p.Name, pod.ErrNotStarted)
	}
	over := make(chan struct{})
	close(over)
	return filepath.Join(pod.LogFolder(s.n.logDir(), p), r.Container, strconv.Itoa(attempt)+".log"), over, nil
}

// Exec implements kubeletapi.Source.
func (s source) Exec(ctx context.Context, r kubeletapi.ExecRequest) (int, error) {
	_, m, err := s.find(r.Namespace, r.Pod)
	if err != nil {
		return 0, err
	}
	if m == nil {
		return 0, fmt.Errorf("pod %q has ended: %w", r.Pod, kubeletapi.ErrNotFound)
	}
	target, err := m.Running(ctx, r.Container)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", kubeletapi.ErrNotFound, err)
	}
	if r.Command != nil {
		return s.n.config.Runtime.Exec(ctx, target.ID, runtime.ExecSpec{Args: r.Command, Terminal: r.Terminal, Streams: r.Streams})
	}
	if !target.Spec.Stdin {
		r.In = nil // there is nobody to read it
	}
	return 0, s.n.config.Runtime.Attach(ctx, target.ID, r.Streams)
}

// Dial implements kubeletapi.Source.
func (s source) Dial(ctx context.Context, namespace, name string, port uint16) (net.Conn, error) {
	p, m, err := s.find(namespace, name)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fmt.Errorf("pod %q has ended: %w", name, kubeletapi.ErrNotFound)
	}
	return s.n.config.Runtime.Dial(ctx, string(p.UID), port)
}

// Pods implements kubeletapi.Source.
func (s source) Pods(running bool) (*corev1.PodList, error) {
	list := &corev1.PodList{Items: []corev1.Pod{}}
	if running {
		for _, m := range s.n.all() {
			p := m.Current().DeepCopy()
			p.Status = m.Status()
			if slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Running != nil }) {
				list.Items = append(list.Items, *p)
			}
		}
		return list, nil
	}
	pods, err := s.n.pods.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("listing the node's pods: %w", err)
	}
	for _, p := range pods {
		p = p.DeepCopy()
		if m := s.n.machine(p.UID); m != nil {
			own := m.Status()
			p.Status = *pod.Merge(&p.Status, &own)
		}
		list.Items = append(list.Items, *p)
	}
	return list, nil
}

// measured is what the statistics are taken from.
type measured struct{ n *Node }

// Running implements stats.Source.
func (s measured) Running() []stats.Pod {
	machines := s.n.all()
	out := make([]stats.Pod, 0, len(machines))
	for _, m := range machines {
		status := m.Status()
		if status.PodIP == "" {
			continue
		}
		p := m.Current()
		one := stats.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		if status.StartTime != nil {
			one.Started = status.StartTime.Time
		}
		out = append(out, one)
	}
	return out
}

// Measure implements stats.Source.
func (s measured) Measure(ctx context.Context, uid types.UID) (runtime.SandboxStats, error) {
	return s.n.config.Runtime.Stats(ctx, string(uid))
}

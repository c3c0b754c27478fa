package node

import (
	"context"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/pod"
)

func ofNode(name string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) { o.FieldSelector = podField(name) }
}

// adopt makes machines for the pods the API has, each with what the runtime still runs of it, and
// clears away what belongs to no pod.
func (n *Node) adopt(ctx context.Context, sandboxes []runtime.Sandbox) {
	left := make(map[types.UID]*runtime.Sandbox, len(sandboxes))
	for i := range sandboxes {
		left[types.UID(sandboxes[i].ID)] = &sandboxes[i]
	}
	pods, err := n.pods.List(labels.Everything())
	if err != nil {
		n.config.Log.Error("listing pods", "error", err)
		return
	}
	known := make(map[types.UID]bool, len(pods))
	for _, p := range pods {
		known[p.UID] = true
		n.take(p, left[p.UID])
		delete(left, p.UID)
	}
	for uid := range left {
		n.config.Log.Info("stopping a sandbox whose pod is gone", "uid", uid)
		if err := n.config.Runtime.StopSandbox(ctx, string(uid)); err != nil {
			n.config.Log.Warn("stopping a sandbox whose pod is gone", "uid", uid, "error", err)
		}
	}
	uids, err := n.host.Volumes.Pods()
	if err != nil {
		n.config.Log.Warn("looking for left-over volumes", "error", err)
	}
	for _, uid := range uids {
		if !known[uid] {
			if err := n.host.Volumes.Teardown(uid); err != nil {
				n.config.Log.Warn("removing left-over volumes", "uid", uid, "error", err)
			}
		}
	}
	n.sweepLogs(pods)
	n.sweepLeases()
}

// take makes the pod's machine or tells it the newest version.
func (n *Node) take(p *corev1.Pod, sandbox *runtime.Sandbox) {
	n.mu.Lock()
	m := n.machines[p.UID]
	if m == nil {
		over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		switch {
		case n.stopping:
		case over && sandbox == nil && p.DeletionTimestamp == nil:
		case p.DeletionTimestamp != nil && sandbox == nil:
			n.writer.remove(p)
		default:
			m = pod.New(n.host, p, sandbox)
			n.machines[p.UID] = m
		}
		n.mu.Unlock()
		if m == nil || p.DeletionTimestamp == nil {
			return
		}
	} else {
		n.mu.Unlock()
	}
	m.Update(p)
}

// drop stops a pod whose object is gone and forgets it once nothing of it is left.
func (n *Node) drop(p *corev1.Pod) {
	m := n.machine(p.UID)
	n.writer.forget(p.UID)
	if m == nil {
		n.removeLogs(p)
		return
	}
	m.Delete(true)
	go func() {
		select {
		case <-m.Finished():
		case <-n.ctx.Done():
			return
		}
		m.Close()
		n.mu.Lock()
		if n.machines[p.UID] == m {
			delete(n.machines, p.UID)
		}
		n.mu.Unlock()
		n.tokens.Forget(p.UID)
		n.removeLogs(p)
	}()
}

func (n *Node) removeLogs(p *corev1.Pod) {
	if err := os.RemoveAll(pod.LogFolder(n.logDir(), p)); err != nil {
		n.config.Log.Warn("removing a pod's logs", "namespace", p.Namespace, "pod", p.Name, "error", err)
	}
	if err := n.host.Volumes.Teardown(p.UID); err != nil {
		n.config.Log.Warn("removing a pod's volumes", "namespace", p.Namespace, "pod", p.Name, "error", err)
	}
}

// sweepLogs removes the logs of pods that went while no node ran.
func (n *Node) sweepLogs(pods []*corev1.Pod) {
	keep := map[string]bool{}
	for _, p := range pods {
		keep[pod.LogFolder(n.logDir(), p)] = true
	}
	entries, err := os.ReadDir(n.logDir())
	if err != nil {
		return // there are none yet
	}
	for _, e := range entries {
		if path := n.logDir() + string(os.PathSeparator) + e.Name(); !keep[path] {
			if err := os.RemoveAll(path); err != nil {
				n.config.Log.Warn("removing left-over logs", "path", path, "error", err)
			}
		}
	}
}

// reconcile is our own path from the API's pods to the machines: by event, and by comparing all of
// both every now and then.
func (n *Node) reconcile(ctx context.Context) error {
	handle, err := n.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { n.take(obj.(*corev1.Pod), nil) },
		UpdateFunc: func(_, obj any) {
			p := obj.(*corev1.Pod)
			n.writer.seen(p)
			n.take(p, nil)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if p, ok := obj.(*corev1.Pod); ok {
				n.drop(p)
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = n.informer.RemoveEventHandler(handle) }() // fails only when it is gone already
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.sweep()
		}
	}
}

// sweep finds what events missed.
func (n *Node) sweep() {
	pods, err := n.pods.List(labels.Everything())
	if err != nil {
		return
	}
	known := make(map[types.UID]bool, len(pods))
	for _, p := range pods {
		known[p.UID] = true
		if n.machine(p.UID) == nil {
			n.take(p, nil)
		}
	}
	n.mu.Lock()
	var lost []*pod.Pod
	for uid, m := range n.machines {
		if !known[uid] {
			lost = append(lost, m)
		}
	}
	n.mu.Unlock()
	for _, m := range lost {
		p := m.Current()
		if time.Since(p.CreationTimestamp.Time) > sweepEvery {
			n.drop(p)
		}
	}
}

package server

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"knative.dev/serving/pkg/apis/serving"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/component/node"
	"ebb.dev/ebb/internal/component/roster"
	"ebb.dev/ebb/internal/platform/fleet"
)

// defaultPort is where an instance listens that names no port.
const defaultPort = 8080

// watcher tells the fleet what the node sees, before the API knows.
type watcher struct {
	fleet  *fleet.Fleet
	roster *roster.Roster
}

// PodChanged implements node.Observer.
func (w watcher) PodChanged(state node.PodState) {
	w.roster.PodChanged(roster.Pod{Object: state.Pod, IP: state.IP, Ready: state.Ready, Draining: state.Draining, Stamps: state.Stamps})
	if in, ours := instance(state.Pod, state.IP, state.Stamps); ours {
		in.Ready, in.Draining = state.Ready, state.Draining
		w.fleet.Observe(fleet.Local, in)
	}
}

// PodGone implements node.Observer.
func (w watcher) PodGone(uid types.UID) {
	w.roster.PodGone(uid)
	w.fleet.Remove(fleet.Local, uid)
}

// drainer has requests to a pod end, whichever routes they came by.
type drainer struct {
	gateway *gateway.Gateway
	roster  *roster.Roster
}

// Drain implements node.Drainer.
func (d drainer) Drain(ctx context.Context, uid types.UID) error {
	for _, id := range d.roster.Instances(uid) {
		if err := d.gateway.Drain(ctx, id); err != nil {
			return err
		}
	}
	return d.gateway.Drain(ctx, uid)
}

// follow tells the fleet what the API says of pods: those of other nodes, and deletions.
func (w watcher) follow() cache.ResourceEventHandler {
	see := func(object any) {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return
		}
		ip, _ := netip.ParseAddr(pod.Status.PodIP)
		in, ours := instance(pod, ip, nil)
		if !ours {
			return
		}
		if over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed; over {
			w.fleet.Remove(fleet.API, pod.UID)
			return
		}
		in.Ready, in.Draining = podReady(pod), pod.DeletionTimestamp != nil
		w.fleet.Observe(fleet.API, in)
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, object any) { see(object) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				w.fleet.Remove(fleet.API, pod.UID)
			}
		},
	}
}

// instance is a pod in the gateway's terms; false for pods that belong to no revision.
func instance(pod *corev1.Pod, ip netip.Addr, stamps map[string]time.Time) (fleet.Instance, bool) {
	revision := pod.Labels[serving.RevisionLabelKey]
	if revision == "" {
		return fleet.Instance{}, false
	}
	in := fleet.Instance{
		ID: pod.UID, Pod: pod.Name, Revision: types.NamespacedName{Namespace: pod.Namespace, Name: revision}, Stamps: stamps,
	}
	if ip.IsValid() {
		in.Address = netip.AddrPortFrom(ip, servingPort(pod))
	}
	return in, true
}

// servingPort is the one port a revision's pod names, whichever container has it.
func servingPort(pod *corev1.Pod) uint16 {
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			return uint16(p.ContainerPort)
		}
	}
	return defaultPort
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

package roster

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"ebb.dev/ebb/internal/domain/traffic"
)

// h2c is the protocol of ports that speak HTTP/2 without TLS.
const h2c = "kubernetes.io/h2c"

// identity tells endpoints apart. What an instance of the fleet cannot change is part of it.
type identity struct {
	uid     types.UID // of the pod, empty for an endpoint that is none
	address netip.AddrPort
	h2c     bool
}

// endpoint is one place behind a Service's port.
type endpoint struct {
	identity
	pod             string
	ready, draining bool
	stamps          map[string]time.Time
}

// sight is all that tells a route's endpoints.
type sight struct {
	service *corev1.Service
	to      traffic.Service
	slices  []*discoveryv1.EndpointSlice
	pods    map[types.UID]Pod        // of the node in this process, in the Service's namespace
	gone    func(uid types.UID) bool // says of a pod that the node had it and has it no more
}

// reckon lists the endpoints, those of the slices first. It is a pure function of what is seen.
func reckon(s sight) []endpoint {
	port, ok := portOf(s.service, &s.to)
	if !ok {
		return nil
	}
	var out []endpoint
	listed := map[types.UID]bool{}
	for _, slice := range s.slices {
		number, speaks, ok := portIn(slice, port)
		if !ok || slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for i := range slice.Endpoints {
			e, ok := listedEndpoint(&slice.Endpoints[i], number, speaks)
			if !ok || e.uid != "" && (listed[e.uid] || s.gone(e.uid)) {
				continue
			}
			if p, local := s.pods[e.uid]; local {
				e.believe(p, s.service.Spec.PublishNotReadyAddresses)
			}
			listed[e.uid] = true
			out = append(out, e)
		}
	}
	return append(out, s.unlisted(port, listed)...)
}

// unlisted are the endpoints of pods here that no slice has yet.
func (s *sight) unlisted(port *corev1.ServicePort, listed map[types.UID]bool) (out []endpoint) {
	for uid, p := range s.pods {
		if listed[uid] || !p.IP.IsValid() || !selects(s.service, p.Object) {
			continue
		}
		number, ok := targetPort(port, p.Object)
		if !ok {
			continue
		}
		e := endpoint{
			identity: identity{uid, netip.AddrPortFrom(p.IP, number), port.AppProtocol != nil && *port.AppProtocol == h2c},
			pod:      p.Object.Name,
		}
		e.believe(p, s.service.Spec.PublishNotReadyAddresses)
		out = append(out, e)
	}
	return out
}

// believe takes the node's word for the state of a pod.
func (e *endpoint) believe(p Pod, always bool) {
	e.ready, e.draining, e.stamps = p.Ready || always, p.Draining, p.Stamps
}

// portOf finds the Service's port that is meant.
func portOf(svc *corev1.Service, to *traffic.Service) (*corev1.ServicePort, bool) {
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if p.Protocol != corev1.ProtocolTCP && p.Protocol != "" {
			continue
		}
		if to.Port != 0 && p.Port == to.Port || to.Port == 0 && p.Name == to.PortName {
			return p, true
		}
	}
	return nil, false
}

// portIn finds the number a Service's port has in a slice, where ports go by the Service's names.
func portIn(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) (number uint16, speaks, ok bool) {
	for i := range slice.Ports {
		p := &slice.Ports[i]
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if name != port.Name || p.Port == nil || p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
			continue
		}
		protocol := port.AppProtocol
		if protocol == nil {
			protocol = p.AppProtocol
		}
		return uint16(*p.Port), protocol != nil && *protocol == h2c, true
	}
	return 0, false, false
}

// listedEndpoint reads a slice's endpoint.
func listedEndpoint(e *discoveryv1.Endpoint, number uint16, speaks bool) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return endpoint{}, false
	}
	out := endpoint{identity: identity{address: netip.AddrPortFrom(ip, number), h2c: speaks}}
	if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" {
		out.uid, out.pod = ref.UID, ref.Name
	}
	out.ready = e.Conditions.Ready == nil || *e.Conditions.Ready
	out.draining = !out.ready && e.Conditions.Terminating != nil && *e.Conditions.Terminating
	return out, true
}

// selects tells whether a Service's selector picks a pod.
func selects(svc *corev1.Service, pod *corev1.Pod) bool {
	return svc != nil && len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(pod.Labels))
}

// targetPort is the number a Service's port has in a pod.
func targetPort(port *corev1.ServicePort, pod *corev1.Pod) (uint16, bool) {
	if port.TargetPort.Type == intstr.Int {
		if n := port.TargetPort.IntVal; n != 0 {
			return uint16(n), true
		}
		return uint16(port.Port), true
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for _, p := range containers[i].Ports {
				if p.Name == port.TargetPort.StrVal && (p.Protocol == corev1.ProtocolTCP || p.Protocol == "") {
					return uint16(p.ContainerPort), true
				}
			}
		}
	}
	return 0, false
}

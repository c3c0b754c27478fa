package roster

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"ebb.dev/ebb/internal/domain/traffic"
)

// service is shop's, with a port of each kind.
func service() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "shop"}, Ports: []corev1.ServicePort{
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
			{Name: "http", Port: 80, TargetPort: intstr.FromString("web")},
			{Name: "grpc", Port: 81, TargetPort: intstr.FromInt32(9090), AppProtocol: new("kubernetes.io/h2c")},
			{Name: "same", Port: 82},
		}},
	}
}

func pod(name string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}}},
	}
}

// slice has the endpoints "name ip"; what changes of each is up to change.
func slice(kind discoveryv1.AddressType, change func(*discoveryv1.Endpoint), endpoints ...[2]string) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "shop-" + string(kind), Labels: map[string]string{discoveryv1.LabelServiceName: "shop"}},
		AddressType: kind,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}, {Name: new("grpc"), Port: new(int32(9090))}},
	}
	for _, e := range endpoints {
		one := discoveryv1.Endpoint{Addresses: []string{e[1]}}
		if e[0] != "" {
			one.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: e[0], UID: types.UID(e[0])}
		}
		if change != nil {
			change(&one)
		}
		out.Endpoints = append(out.Endpoints, one)
	}
	return out
}

func conditions(ready, terminating bool) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Conditions.Ready, e.Conditions.Terminating = &ready, &terminating
	}
}

// seen is an endpoint in short.
type seen struct {
	Pod, Address         string
	Ready, Draining, H2C bool
}

func TestReckon(t *testing.T) {
	const v4 = discoveryv1.AddressTypeIPv4
	shop := map[string]string{"app": "shop", "more": "x"}
	at := netip.MustParseAddr
	for name, tt := range map[string]struct {
		to      traffic.Service
		service func(*corev1.Service)
		slices  []*discoveryv1.EndpointSlice
		pods    []Pod
		gone    types.UID
		want    []seen
	}{
		"by a port's number": {
			to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"})},
			want: []seen{{"a", "10.0.0.1:8080", true, false, false}},
		},
		"by a port's name, which speaks HTTP/2": {
			to: traffic.Service{PortName: "grpc"}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"})},
			want: []seen{{"a", "10.0.0.1:9090", true, false, true}},
		},
		"an endpoint that is no pod": {
			to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"", "192.0.2.7"}, [2]string{"", "192.0.2.8"})},
			want: []seen{{"", "192.0.2.7:8080", true, false, false}, {"", "192.0.2.8:8080", true, false, false}},
		},
		"a port the Service does not have":  {to: traffic.Service{Port: 99}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"})}},
		"a name the Service does not have":  {to: traffic.Service{PortName: "nope"}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"})}},
		"a port for datagrams":              {to: traffic.Service{Port: 53}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"})}},
		"a slice without the port":          {to: traffic.Service{Port: 82}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"})}},
		"a slice of names":                  {to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(discoveryv1.AddressTypeFQDN, nil, [2]string{"", "a.example"})}},
		"not ready":                         {to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, conditions(false, false), [2]string{"a", "10.0.0.1"})}, want: []seen{{"a", "10.0.0.1:8080", false, false, false}}},
		"on its way out":                    {to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, conditions(false, true), [2]string{"a", "10.0.0.1"})}, want: []seen{{"a", "10.0.0.1:8080", false, true, false}}},
		"on its way out, but always wanted": {to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, conditions(true, true), [2]string{"a", "10.0.0.1"})}, want: []seen{{"a", "10.0.0.1:8080", true, false, false}}},
		"the node knows before the slices": {
			to: traffic.Service{Port: 80}, pods: []Pod{{Object: pod("a", shop), IP: at("10.0.0.1"), Ready: true}},
			want: []seen{{"a", "10.0.0.1:8080", true, false, false}},
		},
		"and is believed": {
			to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, conditions(false, false), [2]string{"a", "10.0.0.1"}, [2]string{"b", "10.0.0.2"})},
			pods: []Pod{{Object: pod("a", shop), IP: at("10.0.0.1"), Ready: true}, {Object: pod("b", shop), IP: at("10.0.0.2"), Ready: true, Draining: true}},
			want: []seen{{"a", "10.0.0.1:8080", true, false, false}, {"b", "10.0.0.2:8080", true, true, false}},
		},
		"and when a pod is gone": {
			to: traffic.Service{Port: 80}, slices: []*discoveryv1.EndpointSlice{slice(v4, nil, [2]string{"a", "10.0.0.1"}, [2]string{"b", "10.0.0.2"})},
			gone: "a", want: []seen{{"b", "10.0.0.2:8080", true, false, false}},
		},
		"a pod that starts": {
			to: traffic.Service{Port: 81}, pods: []Pod{{Object: pod("a", shop), IP: at("10.0.0.1")}, {Object: pod("b", shop)}},
			want: []seen{{"a", "10.0.0.1:9090", false, false, true}},
		},
		"a pod of the port's own number": {
			to: traffic.Service{Port: 82}, pods: []Pod{{Object: pod("a", shop), IP: at("10.0.0.1"), Ready: true}},
			want: []seen{{"a", "10.0.0.1:82", true, false, false}},
		},
		"a pod without the port's name": {
			to: traffic.Service{Port: 80}, service: func(s *corev1.Service) { s.Spec.Ports[1].TargetPort = intstr.FromString("admin") },
			pods: []Pod{{Object: pod("a", shop), IP: at("10.0.0.1"), Ready: true}},
		},
		"a pod of another": {to: traffic.Service{Port: 80}, pods: []Pod{{Object: pod("a", map[string]string{"app": "cart"}), IP: at("10.0.0.1"), Ready: true}}},
		"a Service without a selector has the slices' endpoints only": {
			to: traffic.Service{Port: 80}, service: func(s *corev1.Service) { s.Spec.Selector = nil },
			pods: []Pod{{Object: pod("a", nil), IP: at("10.0.0.1"), Ready: true}},
		},
		"a Service that wants those not ready": {
			to: traffic.Service{Port: 80}, service: func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true },
			pods: []Pod{{Object: pod("a", shop), IP: at("10.0.0.1")}},
			want: []seen{{"a", "10.0.0.1:8080", true, false, false}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sight{service: service(), to: tt.to, slices: tt.slices, pods: map[types.UID]Pod{}, gone: func(uid types.UID) bool { return uid == tt.gone }}
			if tt.service != nil {
				tt.service(s.service)
			}
			for _, p := range tt.pods {
				s.pods[p.Object.UID] = p
			}
			var got []seen
			for _, e := range reckon(s) {
				got = append(got, seen{e.pod, e.address.String(), e.ready, e.draining, e.h2c})
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.SortSlices(func(a, b seen) bool { return a.Address < b.Address })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

func TestAddressesAreHandedOutOnce(t *testing.T) {
	name := func(s string) types.NamespacedName { return types.NamespacedName{Namespace: "default", Name: s} }
	a := newAddresses(netip.MustParsePrefix("10.8.0.0/29"))
	want := func(who, asked, addr string, cause error) {
		t.Helper()
		var ask netip.Addr
		if asked != "" {
			ask = netip.MustParseAddr(asked)
		}
		got, err := a.assign(name(who), ask)
		if !errors.Is(err, cause) || err == nil && got.String() != addr {
			t.Errorf("%s asking for %q got %v, %v, want %q, %v", who, asked, got, err, addr, cause)
		}
	}
	want("one", "", "10.8.0.1", nil)
	want("one", "", "10.8.0.1", nil)
	want("two", "10.8.0.5", "10.8.0.5", nil)
	want("three", "10.8.0.5", "", errAddressUsed)
	want("three", "10.9.0.5", "", errOutOfRange)
	want("three", "10.8.0.7", "", errOutOfRange)
	want("two", "10.8.0.6", "10.8.0.6", nil)
	for i := range 4 {
		want(fmt.Sprint(i), "", fmt.Sprintf("10.8.0.%d", i+2), nil)
	}
	want("three", "", "", errRangeFull)
	if waiting := a.release(name("one")); len(waiting) != 1 || waiting[0] != name("three") {
		t.Errorf("released address is told to %v, want three", waiting)
	}
	want("three", "", "10.8.0.1", nil)
}

// balancedService makes a Service of type LoadBalancer with a name.
func balancedService(name, clusterIP string, change func(*corev1.Service)) *corev1.Service {
	return service(clusterIP, func(s *corev1.Service) {
		s.Name, s.Spec.Type = name, corev1.ServiceTypeLoadBalancer
		if change != nil {
			change(s)
		}
	})
}

func TestBalancerAddressesAreAdoptedFromStatus(t *testing.T) {
	w := netnstest.New(t)
	c := w.Config(47)
	n := w.Open(t, c)
	foreign := "example.com/other"
	client := fake.NewClientset(
		balancedService("a-new", "10.47.64.1", nil),
		balancedService("b-old", "10.47.64.2", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.47.128.1"}}
		}),
		balancedService("c-foreign", "10.47.64.3", func(s *corev1.Service) { s.Spec.LoadBalancerClass = &foreign }),
		balancedService("d-asks", "10.47.64.4", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "10.47.128.9" }),
		balancedService("e-asks-too", "10.47.64.5", func(s *corev1.Service) { s.Spec.LoadBalancerIP = "10.47.128.9" }),
	)
	events := record.NewFakeRecorder(100)
	factory := informers.NewSharedInformerFactory(client, 0)
	p, err := New(Config{
		Net: n, Client: client, Informers: factory, NodeIP: c.NodeIP, LoadBalancers: c.LoadBalancerCIDR, Events: events,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	ingress := func(name, want string) {
		t.Helper()
		eventually(t, name, func() error {
			svc, err := client.CoreV1().Services("default").Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if got, _ := given(svc); want != "" && got.String() != want || want == "" && got.IsValid() {
				return fmt.Errorf("has %v, want %q", svc.Status.LoadBalancer.Ingress, want)
			}
			return nil
		})
	}
	ingress("a-new", "10.47.128.2")
	ingress("b-old", "10.47.128.1")
	ingress("c-foreign", "")
	first, second := "d-asks", "e-asks-too" // whichever comes first gets it
	eventually(t, "the asked address", func() error {
		if p.balance.holds(types.NamespacedName{Namespace: "default", Name: first}) {
			return nil
		}
		first, second = second, first
		return errAddressUsed
	})
	ingress(first, "10.47.128.9")
	ingress(second, "")
	if err := client.CoreV1().Services("default").Delete(t.Context(), first, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ingress(second, "10.47.128.9")
	select {
	case <-events.Events:
	default:
		t.Error("the Service that got no address was told nothing")
	}
}

package roster

import (
	"net/netip"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
)

var (
	shopService = types.NamespacedName{Namespace: "default", Name: "shop"}
	first       = traffic.PseudoRevision(types.NamespacedName{Namespace: "default", Name: "first"})
	second      = traffic.PseudoRevision(types.NamespacedName{Namespace: "default", Name: "second"})
)

// scene is a roster over a cluster.
type scene struct {
	*Roster
	t      *testing.T
	client *fake.Clientset
	fleet  *fleet.Fleet
}

func newScene(t *testing.T) *scene {
	t.Helper()
	f := fleet.New()
	s := &scene{Roster: New(f), t: t, client: fake.NewClientset(), fleet: f}
	factory := informers.NewSharedInformerFactory(s.client, 0)
	if err := s.Watch(factory); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	return s
}

// route has the revisions lead to shop's ports.
func (s *scene) route(ports map[types.NamespacedName]int32) {
	s.t.Helper()
	settings := map[types.NamespacedName]traffic.Settings{{Namespace: "default", Name: "hello-00001"}: {}}
	for rev, port := range ports {
		settings[rev] = traffic.Settings{Service: &traffic.Service{Name: shopService, Port: port}}
	}
	table, err := traffic.Build(nil, settings)
	if err != nil {
		s.t.Fatal(err)
	}
	s.SetTable(table)
}

// await waits until so many instances of a revision are ready.
func (s *scene) await(rev types.NamespacedName, ready int) []fleet.Instance {
	s.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for s.fleet.Ready(rev) != ready || len(s.fleet.Instances(rev)) != ready {
		select {
		case <-tick.C:
		case <-late:
			s.t.Fatalf("%+v, want %d ready", s.fleet.Instances(rev), ready)
		}
	}
	return s.fleet.Instances(rev)
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestInstancesFollowTheSlices(t *testing.T) {
	s := newScene(t)
	s.route(map[types.NamespacedName]int32{first: 80, second: 81})
	ctx, slices := t.Context(), s.client.DiscoveryV1().EndpointSlices("default")
	_, err := slices.Create(ctx, slice(discoveryv1.AddressTypeIPv4, nil, [2]string{"a", "10.0.0.1"}, [2]string{"b", "10.0.0.2"}), metav1.CreateOptions{})
	s.must(err)
	_, err = s.client.CoreV1().Services("default").Create(ctx, service(), metav1.CreateOptions{})
	s.must(err)
	one, two := s.await(first, 2), s.await(second, 2)
	if one[0].Address.Port() != 8080 || two[0].Address.Port() != 9090 || !two[0].H2C || one[0].ID == two[0].ID {
		t.Errorf("%+v and %+v", one, two)
	}
	_, err = slices.Update(ctx, slice(discoveryv1.AddressTypeIPv4, nil, [2]string{"b", "10.0.0.2"}), metav1.UpdateOptions{})
	s.must(err)
	if left := s.await(first, 1); left[0].Pod != "b" {
		t.Errorf("%+v left, want b", left)
	}
	_, err = slices.Update(ctx, slice(discoveryv1.AddressTypeIPv4, nil, [2]string{"a", "10.0.0.1"}, [2]string{"b", "10.0.0.2"}), metav1.UpdateOptions{})
	s.must(err)
	s.await(first, 2) // what comes back is there again
	s.route(map[types.NamespacedName]int32{first: 81})
	s.await(second, 0)
	if in := s.await(first, 2); in[0].Address.Port() != 9090 {
		t.Errorf("the route's port changed, not its instances: %+v", in)
	}
	s.must(s.client.CoreV1().Services("default").Delete(ctx, "shop", metav1.DeleteOptions{}))
	s.await(first, 0)
}

func TestTheNodeTellsFirst(t *testing.T) {
	s := newScene(t)
	_, err := s.client.CoreV1().Services("default").Create(t.Context(), service(), metav1.CreateOptions{})
	s.must(err)
	a := Pod{Object: pod("a", map[string]string{"app": "shop"}), IP: netip.MustParseAddr("10.0.0.1"), Stamps: map[string]time.Time{"bound": time.Now()}}
	s.PodChanged(a)
	s.PodChanged(Pod{Object: pod("other", map[string]string{"app": "other"}), IP: netip.MustParseAddr("10.0.0.9"), Ready: true})
	s.route(map[types.NamespacedName]int32{first: 80, second: 81})
	a.Ready = true
	s.PodChanged(a)
	in := s.await(first, 1)
	s.await(second, 1)
	if in[0].Pod != "a" || len(in[0].Stamps) != 1 {
		t.Errorf("%+v", in[0])
	}
	ids := s.Instances("a")
	if len(ids) != 2 || len(s.Instances("other")) != 0 {
		t.Errorf("instances of the pod: %q", ids)
	}
	a.Draining = true
	s.PodChanged(a)
	if in := s.fleet.Instances(first); len(in) != 1 || !in[0].Draining {
		t.Errorf("%+v, want one that drains", in)
	}
	s.PodGone("a")
	s.PodGone("a")
	s.await(first, 0)
	_, err = s.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(),
		slice(discoveryv1.AddressTypeIPv4, nil, [2]string{"a", "10.0.0.1"}, [2]string{"b", "10.0.0.2"}), metav1.CreateOptions{})
	s.must(err)
	if in := s.await(first, 1); in[0].Pod != "b" {
		t.Errorf("the API brought back a pod that is gone: %+v", in)
	}
}

func TestAServiceThatChanges(t *testing.T) {
	s := newScene(t)
	s.route(map[types.NamespacedName]int32{first: 80})
	s.PodChanged(Pod{Object: pod("a", map[string]string{"app": "shop"}), IP: netip.MustParseAddr("10.0.0.1"), Ready: true})
	services := s.client.CoreV1().Services("default")
	_, err := services.Create(t.Context(), service(), metav1.CreateOptions{})
	s.must(err)
	before := s.await(first, 1)[0]
	speaks := service()
	speaks.Spec.Ports[1].AppProtocol = new("kubernetes.io/h2c")
	_, err = services.Update(t.Context(), speaks, metav1.UpdateOptions{})
	s.must(err)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for now := s.await(first, 1)[0]; !now.H2C || now.ID == before.ID; now = s.await(first, 1)[0] {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the protocol did not change")
		}
	}
	moved := service()
	moved.Spec.Selector = map[string]string{"app": "elsewhere"}
	_, err = services.Update(t.Context(), moved, metav1.UpdateOptions{})
	s.must(err)
	s.await(first, 0)
}

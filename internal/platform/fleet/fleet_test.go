package fleet_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/platform/fleet"
)

var (
	rev  = types.NamespacedName{Namespace: "default", Name: "hello-00001"}
	addr = netip.MustParseAddrPort("10.1.0.2:8080")
)

// say is one report about the instance "a".
type say struct {
	src     fleet.Source
	ready   bool
	drains  bool
	address netip.AddrPort
	gone    bool
	told    bool // by the gateway's drain
}

func TestSourcesAgreeOnAnInstance(t *testing.T) {
	const api, local = fleet.API, fleet.Local
	cases := map[string]struct {
		said  []say
		want  []fleet.Instance
		ready int
	}{
		"the API alone is believed":          {[]say{{src: api, ready: true, address: addr}}, []fleet.Instance{{Ready: true, Address: addr}}, 1},
		"the node alone is believed":         {[]say{{src: local, ready: true, address: addr}}, []fleet.Instance{{Ready: true, Address: addr}}, 1},
		"a late API does not unready":        {[]say{{src: local, ready: true, address: addr}, {src: api}}, []fleet.Instance{{Ready: true, Address: addr}}, 1},
		"a stale API does not ready":         {[]say{{src: local, address: addr}, {src: api, ready: true, address: addr}}, []fleet.Instance{{Address: addr}}, 0},
		"the node corrects the API":          {[]say{{src: api, ready: true, address: addr}, {src: local, address: addr}}, []fleet.Instance{{Address: addr}}, 0},
		"the API's deletion drains":          {[]say{{src: local, ready: true, address: addr}, {src: api, ready: true, drains: true}}, []fleet.Instance{{Ready: true, Draining: true, Address: addr}}, 0},
		"the API's address helps the node":   {[]say{{src: api, address: addr}, {src: local, ready: true}}, []fleet.Instance{{Ready: true, Address: addr}}, 1},
		"gone at the node":                   {[]say{{src: local, ready: true}, {src: api, ready: true}, {src: local, gone: true}}, nil, 0},
		"gone in the API":                    {[]say{{src: local, ready: true}, {src: api, ready: true}, {src: api, gone: true}}, nil, 0},
		"a late API does not bring it back":  {[]say{{src: local, ready: true}, {src: local, gone: true}, {src: api, ready: true}}, nil, 0},
		"a late node does not bring it back": {[]say{{src: api, ready: true}, {src: api, gone: true}, {src: local, ready: true}}, nil, 0},
		"gone before it came":                {[]say{{src: local, gone: true}, {src: api, ready: true}}, nil, 0},
		"drained for good":                   {[]say{{src: local, ready: true}, {told: true}, {src: local, ready: true}}, []fleet.Instance{{Ready: true, Draining: true}}, 0},
		"gone twice":                         {[]say{{src: local, ready: true}, {src: local, gone: true}, {src: api, gone: true}}, nil, 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := fleet.New()
			for _, s := range tc.said {
				switch {
				case s.told:
					if _, known := f.Drain("a"); !known {
						t.Error("Drain does not know the instance")
					}
				case s.gone:
					f.Remove(s.src, "a")
				default:
					f.Observe(s.src, fleet.Instance{ID: "a", Revision: rev, Ready: s.ready, Draining: s.drains, Address: s.address})
				}
			}
			ignore := cmpopts.IgnoreFields(fleet.Instance{}, "ID", "Revision")
			equal := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
			if diff := cmp.Diff(tc.want, f.Instances(rev), ignore, equal); diff != "" {
				t.Errorf("instances (-want +got):\n%s", diff)
			}
			if got := f.Ready(rev); got != tc.ready {
				t.Errorf("Ready = %d, want %d", got, tc.ready)
			}
		})
	}
}

func TestTellsChangesOnly(t *testing.T) {
	f := fleet.New()
	var told int
	f.Subscribe(func(got types.NamespacedName) {
		if got != rev {
			t.Errorf("told of %s", got)
		}
		f.Instances(got) // allowed: no lock is held
		told++
	})
	in := fleet.Instance{ID: "a", Revision: rev, Ready: true}
	steps := []struct {
		what string
		do   func()
		want int
	}{
		{"a new instance", func() { f.Observe(fleet.Local, in) }, 1},
		{"the same again", func() { f.Observe(fleet.Local, in) }, 1},
		{"the API agrees", func() { f.Observe(fleet.API, in) }, 1},
		{"a stamp more", func() { in.Stamps = map[string]time.Time{"ready": {}}; f.Observe(fleet.Local, in) }, 2},
		{"draining", func() { f.Drain("a") }, 3},
		{"draining again", func() { f.Drain("a") }, 3},
		{"gone", func() { f.Remove(fleet.Local, "a") }, 4},
		{"gone in the API too", func() { f.Remove(fleet.API, "a") }, 4},
		{"an unknown one gone", func() { f.Remove(fleet.API, "b") }, 4},
	}
	for _, s := range steps {
		if s.do(); told != s.want {
			t.Errorf("after %s: told %d times, want %d", s.what, told, s.want)
		}
	}
}

func TestSnapshotsDoNotChange(t *testing.T) {
	f := fleet.New()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				id := types.UID(fmt.Sprint(i, "-", n%5))
				f.Observe(fleet.Local, fleet.Instance{ID: id, Revision: rev, Ready: n%2 == 0})
				before := f.Instances(rev)
				copied := append([]fleet.Instance(nil), before...)
				if n%7 == 0 {
					f.Drain(id)
				}
				if diff := cmp.Diff(copied, before, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
					t.Errorf("a snapshot changed: %s", diff)
				}
			}
		})
	}
	wg.Wait()
	if n := len(f.Instances(rev)); n != 40 {
		t.Errorf("%d instances, want 40", n)
	}
}

func BenchmarkReady(b *testing.B) {
	f := fleet.New()
	f.Observe(fleet.Local, fleet.Instance{ID: "a", Revision: rev, Ready: true})
	for b.Loop() {
		if f.Ready(rev) != 1 {
			b.Fatal("lost")
		}
	}
}

func TestCountsByState(t *testing.T) {
	f := fleet.New()
	started := map[string]time.Time{"bound": time.Now(), "started": time.Now()}
	for i, in := range []fleet.Instance{
		{Ready: true, Stamps: started},
		{Stamps: started},
		{Stamps: map[string]time.Time{"bound": time.Now()}},
		{Ready: true, Draining: true, Stamps: started},
		{}, // of another node, without an address yet
	} {
		in.ID, in.Revision = types.UID(fmt.Sprint(i)), rev
		f.Observe(fleet.Local, in)
	}
	if got, want := f.Counts(rev), (fleet.Counts{Ready: 1, NotReady: 4, Pending: 2, Terminating: 1}); got != want {
		t.Errorf("Counts() = %+v, want %+v", got, want)
	}
}

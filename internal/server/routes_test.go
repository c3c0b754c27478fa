package server

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/demand"
)

// routeTable has routes by name, each to a Service with a concurrency; 0 is a revision that is none.
func routeTable(t *testing.T, routes map[string]int32) *traffic.Table {
	t.Helper()
	settings := map[types.NamespacedName]traffic.Settings{}
	for name, concurrency := range routes {
		s := traffic.Settings{}
		if concurrency > 0 {
			s.Service = &traffic.Service{Name: types.NamespacedName{Namespace: "shop", Name: name}, Concurrency: concurrency}
		}
		settings[traffic.PseudoRevision(routeName(name))] = s
	}
	table, err := traffic.Build(nil, settings)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func routeName(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: name}
}

func TestTriggersSeeRoutesToServicesOnly(t *testing.T) {
	r := newRoutes(demand.NewBook())
	if _, there := r.Route(routeName("web")); there {
		t.Error("a route is there before any table")
	}
	r.set(routeTable(t, map[string]int32{"web": 20, "plain": 0}))
	if s, there := r.Route(routeName("web")); !there || s.Concurrency != 20 || s.Name.Name != "web" {
		t.Errorf("Route() = %+v, %v", s, there)
	}
	for _, name := range []string{"plain", "other"} {
		if s, there := r.Route(routeName(name)); there {
			t.Errorf("route %s is %+v, want none", name, s)
		}
	}
}

func TestWatchersOfARouteHearOfItsChangesOnly(t *testing.T) {
	r := newRoutes(demand.NewBook())
	told := map[string]int{}
	watch := func(name string) func() {
		return r.WatchRoute(routeName(name), func() {
			if _, known := r.Route(routeName(name)); known { // a watcher may ask at once
				told[name+" there"]++
			}
			told[name]++
		})
	}
	stop, again := watch("web"), watch("web")
	watch("still")
	r.set(routeTable(t, map[string]int32{"web": 20, "still": 5}))
	if told["web"] != 2 || told["web there"] != 2 || told["still"] != 1 {
		t.Errorf("after the first table: %v", told)
	}
	r.set(routeTable(t, map[string]int32{"web": 20, "still": 5}))
	if told["web"] != 2 || told["still"] != 1 {
		t.Errorf("after the same once more: %v", told)
	}
	r.set(routeTable(t, map[string]int32{"web": 30, "still": 5}))
	if told["web"] != 4 || told["still"] != 1 {
		t.Errorf("after another target: %v", told)
	}
	stop()
	r.set(routeTable(t, map[string]int32{"still": 5}))
	if told["web"] != 5 || told["web there"] != 4 {
		t.Errorf("after the route is gone, with one watcher of two: %v", told)
	}
	again()
	again()
	r.set(routeTable(t, map[string]int32{"web": 1, "still": 5}))
	if told["web"] != 5 || len(r.changes) != 1 {
		t.Errorf("without watchers: %v, %d routes are watched", told, len(r.changes))
	}
}

func TestRequestsOfARouteAddUp(t *testing.T) {
	book := demand.NewBook()
	r := newRoutes(book)
	r.set(routeTable(t, map[string]int32{"web": 20}))
	meter := book.Meter(traffic.PseudoRevision(routeName("web")))
	expect := func(want trigger.Requests, when string) {
		t.Helper()
		if got := r.Requests(routeName("web")); got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	expect(trigger.Requests{Quiet: true}, "before the first")
	meter.In(time.Now())
	meter.In(time.Now())
	expect(trigger.Requests{InFlight: 2, Total: 2}, "with two in flight")
	meter.Out(time.Now())
	meter.In(time.Now())
	expect(trigger.Requests{InFlight: 2, Total: 3}, "with one more")
	meter.Out(time.Now())
	meter.Out(time.Now())
	expect(trigger.Requests{Total: 3, Quiet: true}, "when all are over")
	r.set(routeTable(t, nil))
	expect(trigger.Requests{Quiet: true}, "without the route")
	r.set(routeTable(t, map[string]int32{"web": 20}))
	expect(trigger.Requests{Quiet: true}, "a route that comes again counts anew")
}

func TestARequestWakesWhoWatchesItsRoute(t *testing.T) {
	r := newRoutes(demand.NewBook())
	came := map[string]int{}
	stop := r.WatchRequests(routeName("web"), func() { came["web"]++ })
	r.WatchRequests(routeName("other"), func() { came["other"]++ })
	r.WatchRoute(routeName("web"), func() { came["changes"]++ })
	r.request(traffic.PseudoRevision(routeName("web")))
	r.request(traffic.PseudoRevision(routeName("nobody")))
	if came["web"] != 1 || came["other"] != 0 || came["changes"] != 0 {
		t.Errorf("told %v", came)
	}
	stop()
	r.request(traffic.PseudoRevision(routeName("web")))
	if came["web"] != 1 {
		t.Error("told after it stopped to watch")
	}
}

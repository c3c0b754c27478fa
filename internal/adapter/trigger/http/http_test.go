package http

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/domain/traffic"
)

// routes is a gateway with one route, shop.
type routes struct {
	mu      sync.Mutex
	shop    *traffic.Service
	now     trigger.Requests
	changed map[*func()]struct{}
	came    map[*func()]struct{}
}

func newRoutes(to *traffic.Service) *routes {
	return &routes{shop: to, now: trigger.Requests{Quiet: true}, changed: map[*func()]struct{}{}, came: map[*func()]struct{}{}}
}

func (r *routes) Route(name types.NamespacedName) (traffic.Service, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shop == nil || name != (types.NamespacedName{Namespace: "default", Name: "shop"}) {
		return traffic.Service{}, false
	}
	return *r.shop, true
}

func (r *routes) Requests(types.NamespacedName) trigger.Requests {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *routes) WatchRoute(_ types.NamespacedName, changed func()) func() {
	return r.join(r.changed, changed)
}

func (r *routes) WatchRequests(_ types.NamespacedName, came func()) func() {
	return r.join(r.came, came)
}

func (r *routes) join(to map[*func()]struct{}, fn func()) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	to[&fn] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(to, &fn)
	}
}

// tell changes something and tells of it.
func (r *routes) tell(to map[*func()]struct{}, change func()) {
	r.mu.Lock()
	change()
	var fns []func()
	for fn := range to {
		fns = append(fns, *fn)
	}
	r.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// come has so many requests come, and so many be in flight.
func (r *routes) come(n, inFlight int64) {
	r.tell(r.came, func() {
		r.now.Total += n
		r.now.InFlight = inFlight
	})
}

func TestConcurrency(t *testing.T) {
	r := newRoutes(&traffic.Service{Concurrency: 5})
	triggertest.Run(t, triggertest.Subject{
		Type: "external-push", Build: counting(r), Metric: "http_shop_concurrency", Target: "5", NoActivation: true, Bubble: true,
		Metadata: map[string]string{"interceptorRoute": "shop", "scalerAddress": "scaler.keda:9090"},
		Required: []string{"interceptorRoute"}, Down: map[string]string{"interceptorRoute": "gone"},
		Set: func(_ *testing.T, n int) { r.come(int64(n), int64(n)) },
	})
}

// counting has triggers count r's requests.
func counting(r *routes) trigger.Build {
	return func(c trigger.Config) (trigger.Source, error) {
		c.Routes = r
		return New(c)
	}
}

// open makes a source with those metadata, "name=value".
func open(t *testing.T, r *routes, metadata string) trigger.Source {
	t.Helper()
	c := trigger.Config{Environment: triggertest.Environment(t)}
	name, value, _ := strings.Cut(metadata, "=")
	c.TriggerIndex, c.ScalableObjectNamespace, c.TriggerMetadata = 1, "default", map[string]string{name: value}
	source, err := counting(r)(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	return source
}

func rate(target int32, window, granularity time.Duration) *traffic.Rate {
	return &traffic.Rate{Target: target, Window: window, Granularity: granularity}
}

// metric is a target or a reading in short.
type metric struct {
	Name, Value string
	Active      bool
}

func targets(t *testing.T, s trigger.Source) []metric {
	t.Helper()
	specs, err := s.Specs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []metric
	for i := range specs {
		if specs[i].Type != autoscalingv2.ExternalMetricSourceType {
			t.Errorf("a metric of type %s", specs[i].Type)
		}
		out = append(out, metric{Name: specs[i].External.Metric.Name, Value: specs[i].External.Target.AverageValue.String()})
	}
	return out
}

func readings(t *testing.T, s trigger.Source) []metric {
	t.Helper()
	all, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []metric
	for _, r := range all {
		out = append(out, metric{r.Metric, r.Value.String(), r.Active})
	}
	return out
}

func TestMetricsOfARoute(t *testing.T) {
	const concurrency, perSecond, old = "s1-http_shop_concurrency", "s1-http_shop_rate", "s1-http-default_002Fshop"
	both := traffic.Service{Concurrency: 7, Rate: rate(3, 10*time.Second, time.Second)}
	for name, tt := range map[string]struct {
		metadata string
		to       traffic.Service
		targets  []metric
		readings []metric // after 15 requests in 10 s, of which 4 are in flight
	}{
		"concurrency": {
			"interceptorRoute=shop",
			traffic.Service{Concurrency: 7},
			[]metric{{concurrency, "7", false}},
			[]metric{{concurrency, "4", true}},
		},
		"rate": {
			"interceptorRoute=shop",
			traffic.Service{Rate: both.Rate},
			[]metric{{perSecond, "3", false}},
			[]metric{{perSecond, "1.500", true}},
		},
		"both": {
			"interceptorRoute=shop", both,
			[]metric{{concurrency, "7", false}, {perSecond, "3", false}},
			[]metric{{concurrency, "4", true}, {perSecond, "1.500", true}},
		},
		"an object's concurrency": {
			"httpScaledObject=shop",
			traffic.Service{Concurrency: 100},
			[]metric{{old, "100", false}},
			[]metric{{old, "4", true}},
		},
		"an object's rate is a whole number": {
			"httpScaledObject=shop",
			traffic.Service{Rate: both.Rate},
			[]metric{{old, "3", false}},
			[]metric{{old, "2", true}},
		},
		"rate in parts of another size": {
			"interceptorRoute=shop",
			traffic.Service{Rate: rate(3, 10*time.Second, 5*time.Second)},
			[]metric{{perSecond, "3", false}},
			[]metric{{perSecond, "7.500", true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoutes(&tt.to)
				s := open(t, r, tt.metadata)
				if diff := cmp.Diff(tt.targets, targets(t, s)); diff != "" {
					t.Error(diff)
				}
				for range 9 {
					r.come(1, 4)
					<-time.After(time.Second)
				}
				r.come(6, 4)
				if diff := cmp.Diff(tt.readings, readings(t, s)); diff != "" {
					t.Error(diff)
				}
				r.come(0, 0)
				<-time.After(11 * time.Second)
				for _, m := range readings(t, s) {
					if m.Value != "0" || m.Active {
						t.Errorf("after quiet: %+v", m)
					}
				}
			})
		})
	}
}

func TestARequestThatIsOverStillTellsOfActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoutes(&traffic.Service{Concurrency: 1})
		s := open(t, r, "interceptorRoute=shop")
		<-time.After(time.Minute)
		woken := make(chan struct{}, 100)
		defer s.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- struct{}{} })()
		r.come(1, 0)
		<-woken
		if got := readings(t, s)[0]; !got.Active || got.Value != "0" {
			t.Errorf("%+v, want activity", got)
		}
		<-time.After(2 * time.Second)
		if got := readings(t, s)[0]; got.Active {
			t.Errorf("%+v later, want none", got)
		}
	})
}

func TestARouteThatComesAndChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoutes(nil)
		s := open(t, r, "interceptorRoute=shop")
		if _, err := s.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no InterceptorRoute default/shop") {
			t.Errorf("reading what is not there: %v", err)
		}
		go func() {
			<-time.After(time.Second)
			r.tell(r.changed, func() { r.shop = &traffic.Service{Concurrency: 3} })
		}()
		if got := targets(t, s); got[0].Value != "3" {
			t.Errorf("%+v, want what came while it waited", got)
		}
		changed := make(chan struct{}, 1)
		defer s.(trigger.Respecifier).WatchSpecs(func() { changed <- struct{}{} })()
		r.tell(r.changed, func() { r.shop = &traffic.Service{Rate: rate(2, 0, 0)} })
		<-changed
		if got := targets(t, s); got[0].Name != "s1-http_shop_rate" {
			t.Errorf("%+v, want what it is now", got)
		}
		r.come(120, 0)
		if got := readings(t, s); got[0].Value != "120" { // the window has just begun
			t.Errorf("%+v", got)
		}
		r.tell(r.changed, func() { r.shop = nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Specs(ctx); err == nil {
			t.Error("it tells the metrics of a route that is gone")
		}
	})
}

func TestAQuietRouteIsNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoutes(&traffic.Service{Rate: rate(1, 10*time.Second, time.Second)})
		s := open(t, r, "interceptorRoute=shop").(*source)
		defer s.Watch(trigger.Idle, func() {})()
		at := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			s.gauge.mu.Lock()
			defer s.gauge.mu.Unlock()
			if looks := s.gauge.timer != nil; looks != want {
				t.Errorf("%s it is looked at: %v", what, looks)
			}
		}
		<-time.After(time.Second)
		at("at first", false)
		r.come(1, 1)
		at("with a request", true)
		r.come(0, 0)
		<-time.After(5 * time.Second)
		at("while the window holds it", true)
		<-time.After(10 * time.Second)
		at("after", false)
	})
}

func TestOtherTriggersAreLeftToOthers(t *testing.T) {
	asked := false
	build := Or(func(trigger.Config) (trigger.Source, error) { asked = true; return nil, nil })
	var c trigger.Config
	c.TriggerMetadata = map[string]string{"scalerAddress": "scaler:9090"}
	if _, err := build(c); err != nil || !asked {
		t.Errorf("another's trigger: asked %v, %v", asked, err)
	}
	c.TriggerMetadata = map[string]string{"interceptorRoute": "shop"}
	if _, err := build(c); err == nil || !strings.Contains(err.Error(), "no gateway") {
		t.Errorf("without a gateway: %v", err)
	}
}

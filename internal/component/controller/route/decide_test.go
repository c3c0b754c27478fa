package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

const gateway = "gateway.ebb-system.svc.cluster.local"

// parse makes settings of ConfigMaps written as "map/key": value.
func parse(t *testing.T, values map[string]string) *settings.Settings {
	t.Helper()
	maps := map[string]*corev1.ConfigMap{}
	for path, value := range values {
		name, key, _ := strings.Cut(path, "/")
		if maps[name] == nil {
			maps[name] = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{}}
		}
		maps[name].Data[key] = value
	}
	s, err := settings.Parse(t.Context(), maps)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func isReady(status corev1.ConditionStatus) duckv1.Conditions {
	return duckv1.Conditions{{Type: apis.ConditionReady, Status: status}}
}

func revision(name, configuration string, ready corev1.ConditionStatus) *servingv1.Revision {
	rev := &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{
		serving.ConfigurationLabelKey: configuration, serving.ServiceLabelKey: configuration,
	}}}
	rev.Status.Conditions = isReady(ready)
	return rev
}

// fixture is a Service's Route with two ready Revisions, the second the latest.
func fixture(t *testing.T, targets ...servingv1.TrafficTarget) state {
	t.Helper()
	route := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{
		Name: "hello", Namespace: "shop", UID: "ru", Generation: 1, Labels: map[string]string{serving.ServiceLabelKey: "hello"},
	}}
	if targets == nil {
		targets = []servingv1.TrafficTarget{latest(100, "")}
	}
	route.Spec.Traffic = targets
	route.SetDefaults(t.Context())
	cfg := &servingv1.Configuration{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop"}}
	cfg.Status.LatestCreatedRevisionName, cfg.Status.LatestReadyRevisionName = "hello-2", "hello-2"
	cfg.Status.Conditions = isReady("True")
	return state{
		route: route, settings: parse(t, nil),
		configurations: map[string]*servingv1.Configuration{"hello": cfg},
		revisions:      map[string]*servingv1.Revision{"hello-0": revision("hello-0", "hello", "True"), "hello-1": revision("hello-1", "hello", "True"), "hello-2": revision("hello-2", "hello", "True")},
		services:       map[string]*corev1.Service{},
	}
}

func latest(percent int64, tag string) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{ConfigurationName: "hello", Percent: &percent, Tag: tag}
}

func fixed(revision string, percent int64, tag string) servingv1.TrafficTarget {
	return servingv1.TrafficTarget{RevisionName: revision, Percent: &percent, Tag: tag}
}

func decided(s state) plan {
	n := naming{settings: s.settings, publicPort: 8080, aliases: map[string][]string{"localhost": {"127.0.0.1.sslip.io"}}}
	return n.decide(s, gateway)
}

// table writes an entry's rules as "host: revision percent …", cluster-local ones in brackets.
func table(e *controller.Entry) []string {
	if e == nil {
		return nil
	}
	var out []string
	for _, r := range e.Rules {
		line := r.Host + ":"
		if r.ClusterLocal {
			line = "[" + r.Host + "]:"
		}
		for _, target := range r.Targets {
			line += fmt.Sprintf(" %s %d", target.Revision.Name, target.Percent)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func TestHosts(t *testing.T) {
	tests := map[string]struct {
		change func(*state)
		want   []string
		url    string
	}{
		"everywhere": {func(*state) {}, []string{
			"[hello.shop.svc.cluster.local]: hello-2 100", "[hello.shop.svc]: hello-2 100", "[hello.shop]: hello-2 100",
			"hello.shop.127.0.0.1.sslip.io: hello-2 100", "hello.shop.localhost: hello-2 100",
		}, "http://hello.shop.localhost:8080"},
		"inside only, by label": {func(s *state) {
			s.route.Labels["networking.knative.dev/visibility"] = "cluster-local"
		}, []string{
			"[hello.shop.svc.cluster.local]: hello-2 100", "[hello.shop.svc]: hello-2 100", "[hello.shop]: hello-2 100",
		}, "http://hello.shop.svc.cluster.local"},
		"inside only, by domain": {func(s *state) {
			s.settings = parse(t, map[string]string{"config-domain/svc.cluster.local": ""})
		}, []string{
			"[hello.shop.svc.cluster.local]: hello-2 100", "[hello.shop.svc]: hello-2 100", "[hello.shop]: hello-2 100",
		}, "http://hello.shop.svc.cluster.local"},
		"a domain of one's own, by another template": {func(s *state) {
			s.settings = parse(t, map[string]string{
				"config-domain/example.com": "", "config-network/domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}",
			})
		}, []string{
			"[hello.shop.svc.cluster.local]: hello-2 100", "[hello.shop.svc]: hello-2 100", "[hello.shop]: hello-2 100",
			"hello-shop.example.com: hello-2 100",
		}, "http://hello-shop.example.com:8080"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fixture(t)
			tt.change(&s)
			p := decided(s)
			if diff := cmp.Diff(tt.want, table(p.entry)); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
			if got := p.status.URL.String(); got != tt.url {
				t.Errorf("url %s, want %s", got, tt.url)
			}
			if got := p.status.Address.URL.String(); got != "http://hello.shop.svc.cluster.local" {
				t.Errorf("address %s", got)
			}
			if !p.status.GetCondition(apis.ConditionReady).IsTrue() {
				t.Errorf("not ready: %+v", p.status.Conditions)
			}
		})
	}
}

func TestTrafficByPercentAndTag(t *testing.T) {
	s := fixture(t, fixed("hello-1", 60, "before"), latest(40, "now"), latest(0, "latest"))
	p := decided(s)
	public := slices.DeleteFunc(table(p.entry), func(line string) bool { return !strings.Contains(line, "localhost") })
	want := []string{
		"before-hello.shop.localhost: hello-1 100",
		"hello.shop.localhost: hello-1 60 hello-2 40",
		"latest-hello.shop.localhost: hello-2 100",
		"now-hello.shop.localhost: hello-2 100",
	}
	if diff := cmp.Diff(want, public); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	var shown []string
	for _, tt := range p.status.Traffic {
		shown = append(shown, fmt.Sprintf("%s %s %d %v %s", tt.Tag, tt.RevisionName, *tt.Percent, *tt.LatestRevision, tt.URL))
	}
	want = []string{
		"before hello-1 60 false http://before-hello.shop.localhost:8080",
		"now hello-2 40 true http://now-hello.shop.localhost:8080",
		"latest hello-2 0 true http://latest-hello.shop.localhost:8080",
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("status.traffic (-want +got):\n%s", diff)
	}
	if len(p.createServices) != 4 {
		t.Errorf("%d services for 4 hosts", len(p.createServices))
	}
}

func TestOneTagMayBeHidden(t *testing.T) {
	s := fixture(t, latest(100, "inner"))
	hidden := render.Placeholder(s.route, "inner-hello", gateway)
	hidden.Labels["networking.knative.dev/visibility"] = "cluster-local"
	s.services["inner-hello"] = hidden
	p := decided(s)
	for _, line := range table(p.entry) {
		if strings.HasPrefix(line, "inner-hello") {
			t.Errorf("hidden tag is public: %s", line)
		}
	}
	if len(p.updateServices) > 0 {
		t.Error("the user's label on the service is taken away")
	}
}

func TestTrafficThatCannotBeAssigned(t *testing.T) {
	tests := map[string]struct {
		targets []servingv1.TrafficTarget
		change  func(*state)
		want    string
	}{
		"no revision yet": {nil, func(s *state) {
			cfg := s.configurations["hello"]
			cfg.Status.LatestReadyRevisionName, cfg.Status.Conditions = "", isReady("Unknown")
		}, `Unknown RevisionMissing Configuration "hello" is waiting for a Revision to become ready.`},
		"none will come": {nil, func(s *state) {
			cfg := s.configurations["hello"]
			cfg.Status.LatestReadyRevisionName, cfg.Status.Conditions = "", isReady("False")
		}, `False RevisionMissing Configuration "hello" does not have any ready Revision.`},
		"no configuration": {
			nil, func(s *state) { s.configurations = nil },
			`False ConfigurationMissing Configuration "hello" referenced in traffic not found.`,
		},
		"a revision that is not there": {
			[]servingv1.TrafficTarget{fixed("hello-9", 100, "")},
			func(*state) {},
			`False RevisionMissing Revision "hello-9" referenced in traffic not found.`,
		},
		"a revision on its way": {[]servingv1.TrafficTarget{fixed("hello-1", 100, "")}, func(s *state) {
			s.revisions["hello-1"].Status.Conditions = isReady("Unknown")
		}, `Unknown RevisionMissing Revision "hello-1" is not yet ready.`},
		"a revision that failed": {[]servingv1.TrafficTarget{fixed("hello-1", 100, "")}, func(s *state) {
			s.revisions["hello-1"].Status.Conditions = isReady("False")
		}, `False RevisionMissing Revision "hello-1" failed to become ready.`},
		"a failure outweighs a wait": {[]servingv1.TrafficTarget{fixed("hello-1", 50, ""), fixed("hello-9", 50, "")}, func(s *state) {
			s.revisions["hello-1"].Status.Conditions = isReady("Unknown")
		}, `False RevisionMissing Revision "hello-9" referenced in traffic not found.`},
		"another service's revision": {[]servingv1.TrafficTarget{fixed("other-1", 100, "")}, func(s *state) {
			s.revisions["other-1"] = revision("other-1", "other", "True")
		}, `False RevisionNotOwned Revision "other-1" belongs to Service "other", not Service "hello".`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fixture(t, tt.targets...)
			tt.change(&s)
			p := decided(s)
			c := p.status.GetCondition(servingv1.RouteConditionAllTrafficAssigned)
			if got := fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message); got != tt.want {
				t.Errorf("assigned %s\nwant     %s", got, tt.want)
			}
			if p.entry != nil || len(p.createServices) > 0 {
				t.Error("something is published")
			}
		})
	}
}

func TestServices(t *testing.T) {
	s := fixture(t)
	mine := render.Placeholder(s.route, "hello", gateway)
	old := render.Placeholder(s.route, "old-hello", gateway)
	s.services = map[string]*corev1.Service{"hello": mine, "old-hello": old}
	p := decided(s)
	if len(p.createServices)+len(p.updateServices) != 0 || len(p.deleteServices) != 1 || p.deleteServices[0] != old {
		t.Errorf("plan %+v, want the old tag's service gone", p)
	}
	mine.Spec.ExternalName = "elsewhere"
	if p := decided(s); len(p.updateServices) != 1 {
		t.Error("a changed service is not put right")
	}
	mine.OwnerReferences = nil
	p = decided(s)
	if c := p.status.GetCondition(servingv1.RouteConditionIngressReady); c.GetReason() != "NotOwned" || p.entry != nil {
		t.Errorf("a foreign service: %v, entry %v", c, p.entry)
	}
}

func TestNotes(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	noted := func(rev *servingv1.Revision, state servingv1.RoutingState) {
		rev.Annotations = map[string]string{serving.RoutesAnnotationKey: "hello"}
		rev.SetRoutingState(state, now)
	}
	tests := map[string]struct {
		change func(*state)
		want   []string
	}{
		"what traffic leads to is told": {func(*state) {}, []string{
			`hello {"metadata":{"annotations":{"serving.knative.dev/routes":"hello"},"labels":{}}}`,
			`hello-2 {"metadata":{"annotations":{"serving.knative.dev/routes":"hello","serving.knative.dev/routingStateModified":"2026-01-02T12:00:00Z"},"labels":{"serving.knative.dev/routingState":"active"}}}`,
		}},
		"what was told is not told again": {func(s *state) {
			s.configurations["hello"].Annotations = map[string]string{serving.RoutesAnnotationKey: "hello"}
			noted(s.revisions["hello-2"], servingv1.RoutingStateActive)
		}, nil},
		"what traffic left goes to reserve": {func(s *state) {
			s.configurations["hello"].Annotations = map[string]string{serving.RoutesAnnotationKey: "hello"}
			noted(s.revisions["hello-1"], servingv1.RoutingStateActive)
			noted(s.revisions["hello-2"], servingv1.RoutingStateActive)
		}, []string{
			`hello-1 {"metadata":{"annotations":{"serving.knative.dev/routes":null,"serving.knative.dev/routingStateModified":"2026-01-02T12:00:00Z"},"labels":{"serving.knative.dev/routingState":"reserve"}}}`,
		}},
		"but not before its successor serves": {func(s *state) {
			s.configurations["hello"].Annotations = map[string]string{serving.RoutesAnnotationKey: "hello"}
			noted(s.revisions["hello-1"], servingv1.RoutingStateActive)
			noted(s.revisions["hello-2"], servingv1.RoutingStateActive)
			s.route.Generation = 7 // not observed yet
		}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fixture(t)
			tt.change(&s)
			after := s.route.DeepCopy()
			after.Status.ObservedGeneration, after.Status.Conditions = 1, isReady("True")
			all, err := notes(s, after, now)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range all {
				got = append(got, n.object.GetName()+" "+string(n.patch))
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRestoredTrafficIsWhatStatusShows(t *testing.T) {
	s := fixture(t)
	s.route.Status.Traffic = []servingv1.TrafficTarget{fixed("hello-1", 30, "a"), fixed("hello-2", 70, ""), fixed("gone", 0, "b")}
	a := restored(s)
	if diff := cmp.Diff([]string{"", "a"}, a.tags()); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	e := entryOf(s, a, map[string]host{"": {public: []string{"x.y"}}, "a": {public: []string{"a.y"}}})
	if diff := cmp.Diff([]string{"a.y: hello-1 100", "x.y: hello-1 30 hello-2 70"}, table(&e)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if _, ok := e.Revisions[types.NamespacedName{Namespace: "shop", Name: "hello-1"}]; !ok {
		t.Error("no settings for hello-1")
	}
}

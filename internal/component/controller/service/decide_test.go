package service

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/render"
)

// fixture is a Service that is settled: its children are as it wants them, and ready.
func fixture(t *testing.T) state {
	t.Helper()
	svc := &servingv1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "shop", UID: "u", Generation: 1}}
	svc.Spec.Template.Spec.Containers = append(svc.Spec.Template.Spec.Containers, container())
	svc.SetDefaults(t.Context())
	s := state{service: svc, configuration: render.Configuration(svc, nil), route: render.Route(svc)}
	s.configuration.UID = "cu"
	s.configuration.Generation, s.configuration.Status.ObservedGeneration = 1, 1
	s.configuration.Status.LatestCreatedRevisionName = "hello-00001"
	s.configuration.Status.LatestReadyRevisionName = "hello-00001"
	s.configuration.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "True"}}
	s.route.Generation, s.route.Status.ObservedGeneration = 1, 1
	s.route.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "True"}}
	hundred, latest := int64(100), true
	s.route.Status.Traffic = []servingv1.TrafficTarget{{RevisionName: "hello-00001", Percent: &hundred, LatestRevision: &latest}}
	return s
}

func TestDecide(t *testing.T) {
	tests := map[string]struct {
		change func(*state)
		does   string // the plan's steps
		ready  string // status reason
		say    string // part of Ready's message
	}{
		"a settled service is ready and left alone": {func(*state) {}, "", "True ", ""},
		"a new service gets both children": {func(s *state) {
			s.configuration, s.route = nil, nil
		}, "create configuration, create route", "Unknown OutOfDate", ""},
		"a named revision must be known before the route": {func(s *state) {
			s.service.Spec.Template.Name = "hello-blue"
			s.configuration, s.route = nil, nil
		}, "create configuration", "Unknown OutOfDate", ""},
		"a changed template changes the configuration": {func(s *state) {
			s.service.Spec.Template.Spec.Containers[0].Image = "other"
		}, "update configuration", "Unknown OutOfDate", ""},
		"a changed label reaches both": {func(s *state) {
			s.service.Labels = map[string]string{"a": "b"}
		}, "update configuration, update route", "Unknown OutOfDate", ""},
		"a configuration that is another's stops all": {func(s *state) {
			s.configuration.OwnerReferences = nil
			s.route = nil
		}, "", "False NotOwned", `There is an existing Configuration "hello" that we do not own.`},
		"a route that is another's is told": {func(s *state) {
			s.route.OwnerReferences = nil
		}, "", "False NotOwned", `There is an existing Route "hello" that we do not own.`},
		"a revision's name that is taken keeps traffic where it is": {func(s *state) {
			s.service.Spec.Template.Name = "hello-blue"
			s.configuration.Spec.Template.Name = "hello-blue"
			s.named = &servingv1.Revision{ObjectMeta: metav1.ObjectMeta{Name: "hello-blue"}}
		}, "", "False RevisionNameTaken", "taken by a conflicting Revision"},
		"traffic on the way is told": {func(s *state) {
			s.configuration.Status.LatestReadyRevisionName = "hello-00002"
		}, "", "Unknown TrafficNotMigrated", "Traffic is not yet migrated"},
		"what keeps a revision from starting is said while all is unknown": {func(s *state) {
			s.configuration.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "Unknown", Reason: "ImagePullBackOff", Message: "no such image"}}
			s.route.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "Unknown", Reason: "RevisionMissing"}}
		}, "", "Unknown ImagePullBackOff", "no such image"},
		"a failed revision is said, not that the route misses it": {func(s *state) {
			s.configuration.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "False", Reason: "RevisionFailed", Message: "exit code 5"}}
			s.route.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "False", Reason: "RevisionMissing"}}
		}, "", "False RevisionFailed", "exit code 5"},
		"an ordinary start says what upstream says": {func(s *state) {
			s.configuration.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "Unknown"}}
			s.route.Status.Conditions = duckv1.Conditions{{Type: apis.ConditionReady, Status: "Unknown", Reason: "RevisionMissing"}}
		}, "", "Unknown RevisionMissing", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fixture(t)
			tt.change(&s)
			p := decide(t.Context(), s)
			if got := steps(p); got != tt.does {
				t.Errorf("does %q, want %q", got, tt.does)
			}
			ready := p.status.GetCondition(apis.ConditionReady)
			if got := string(ready.Status) + " " + ready.Reason; got != tt.ready {
				t.Errorf("ready %q, want %q", got, tt.ready)
			}
			if !strings.Contains(ready.Message, tt.say) {
				t.Errorf("message %q, want %q in it", ready.Message, tt.say)
			}
		})
	}
}

func TestDecideKeepsOtherRoutesOnTheConfiguration(t *testing.T) {
	s := fixture(t)
	s.configuration.Annotations[serving.RoutesAnnotationKey] = "hello,other"
	if p := decide(t.Context(), s); steps(p) != "" {
		t.Errorf("does %q, want nothing", steps(p))
	}
}

func steps(p plan) string {
	var out []string
	for name, there := range map[string]bool{
		"create configuration": p.createConfiguration != nil, "update configuration": p.updateConfiguration != nil,
		"create route": p.createRoute != nil, "update route": p.updateRoute != nil,
	} {
		if there {
			out = append(out, name)
		}
	}
	return strings.Join(sorted(out), ", ")
}

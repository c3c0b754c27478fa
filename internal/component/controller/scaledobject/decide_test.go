package scaledobject

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/activation"
)

var errTest = errors.New("wrong password")

// fine is a state with nothing wrong.
func fine() state {
	f := followed("s0-redis-jobs", "s1-cron")
	return state{object: object(), target: scaled{kind: deployments, replicas: new(int32(3))}, followed: &f}
}

func TestReady(t *testing.T) {
	const bad = "ScaledObjectCheckFailed"
	for name, tt := range map[string]struct {
		change func(*state)
		want   kedav1alpha1.Condition
		shown  int // metrics of the autoscaler
	}{
		"all well": {func(*state) {}, kedav1alpha1.Condition{
			Status: "True", Reason: "ScaledObjectReady", Message: "ScaledObject is defined correctly and is ready for scaling",
		}, 2},
		"no name of a target": {func(s *state) { s.object.Spec.ScaleTargetRef.Name = "" }, kedav1alpha1.Condition{
			Status: "False", Reason: bad, Message: "ScaledObject doesn't have correct scaleTargetRef specification: ScaledObject.spec.scaleTargetRef.name is missing",
		}, 0},
		"a kind that is not there": {func(s *state) { s.target = scaled{unknown: errors.New("no matches for kind")} }, kedav1alpha1.Condition{
			Status: "False", Reason: bad, Message: "ScaledObject doesn't have correct scaleTargetRef specification: no matches for kind",
		}, 0},
		"a target without scale": {func(s *state) { s.target.err = &controller.TargetError{Err: errors.New("no scale")} }, kedav1alpha1.Condition{
			Status: "False", Reason: bad, Message: "ScaledObject doesn't have correct scaleTargetRef specification: no scale",
		}, 0},
		"bounds the wrong way round": {func(s *state) {
			s.object.Spec.MinReplicaCount, s.object.Spec.MaxReplicaCount = new(int32(5)), new(int32(2))
		}, kedav1alpha1.Condition{
			Status: "False", Reason: bad,
			Message: "ScaledObject doesn't have correct Idle/Min/Max Replica Counts specification: MinReplicaCount=5 must be less than MaxReplicaCount=2",
		}, 0},
		"no triggers": {func(s *state) { s.object.Spec.Triggers = nil }, kedav1alpha1.Condition{
			Status: "False", Reason: bad, Message: "ScaledObject doesn't have correct triggers specification: no triggers defined in the ScaledObject/ScaledJob",
		}, 0},
		"nothing to follow": {func(s *state) { s.followed, s.followErr = nil, errTest }, kedav1alpha1.Condition{
			Status: "False", Reason: bad, Message: "failed to ensure HPA is correctly created for ScaledObject: wrong password",
		}, 0},
		"one name of two metrics": {func(s *state) { s.followed.Specs[1] = external("s0-redis-jobs") }, kedav1alpha1.Condition{
			Status: "False", Reason: bad,
			Message: "failed to ensure HPA is correctly created for ScaledObject: metricName s0-redis-jobs defined multiple times in ScaledObject orders",
		}, 0},
		"a broken trigger leaves its siblings": {func(s *state) {
			s.followed.Specs = s.followed.Specs[:1]
			s.followed.Failed = []activation.FailedTrigger{{Index: 1, Type: "cron", Err: errTest}}
		}, kedav1alpha1.Condition{
			Status: "False", Reason: bad, Message: "failed to ensure HPA is correctly created for ScaledObject: wrong password",
		}, 1},
		"a trigger that is not built in leaves its siblings": {func(s *state) {
			s.followed.Specs = s.followed.Specs[:1]
			s.followed.Failed = []activation.FailedTrigger{{Index: 1, Type: "solr", Name: "docs", NotBuiltIn: true}}
		}, kedav1alpha1.Condition{
			Status: "False", Reason: "TriggerNotBuiltIn",
			Message: `trigger 1 (docs): type "solr" is not built in; serve it by a program of the external scaler protocol and use type "external" or "external-push"`,
		}, 1},
		"no trigger that is built in": {func(s *state) {
			s.followed.Specs = nil
			s.followed.Failed = []activation.FailedTrigger{{Index: 0, Type: "solr", NotBuiltIn: true}}
		}, kedav1alpha1.Condition{
			Status: "False", Reason: "TriggerNotBuiltIn",
			Message: `trigger 0: type "solr" is not built in; serve it by a program of the external scaler protocol and use type "external" or "external-push"`,
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := fine()
			tt.change(&s)
			p := decide(s)
			if diff := cmp.Diff(tt.want, conditionOf(conclude(s, p), "Ready")); diff != "" {
				t.Error(diff)
			}
			got := 0
			if p.create != nil {
				got = len(p.create.Spec.Metrics)
			}
			if got != tt.shown {
				t.Errorf("autoscaler of %d metrics, want %d", got, tt.shown)
			}
		})
	}
}

func TestActivityIsUnknownOnlyWhenNothingWorks(t *testing.T) {
	s := fine()
	s.followed.Failed = []activation.FailedTrigger{{Err: errTest}}
	s.engine = &activation.State{}
	s.engine.Conditions.SetCondition("Active", "True", "ScalerActive", "")
	if c := conditionOf(conclude(s, decide(s)), "Active"); c.Status != "True" {
		t.Errorf("with a sibling at work: %+v", c)
	}
	s.followed.Specs = nil
	if c := conditionOf(conclude(s, decide(s)), "Active"); c.Status != "Unknown" {
		t.Errorf("with none: %+v", c)
	}
}

func TestStatusOfAFormulaAndWithoutIt(t *testing.T) {
	s := fine()
	s.object.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{Formula: "a+b", Target: "2"}}
	st := conclude(s, decide(s)).Status
	if st.CompositeScalerName != "composite-metric" || len(st.ExternalMetricNames) != 2 {
		t.Errorf("with a formula: %+v", st)
	}
	s.object.Status, s.object.Spec.Advanced = st, nil
	s.object.Status.Health = map[string]kedav1alpha1.HealthStatus{"s0-redis-jobs": {Status: "Happy"}, "s7-gone": {Status: "Failing"}}
	st = conclude(s, decide(s)).Status
	if st.CompositeScalerName != "" {
		t.Error("without one its name stays")
	}
	if _, stays := st.Health["s7-gone"]; stays || st.Health["s0-redis-jobs"].Status != "Happy" {
		t.Errorf("health %+v", st.Health)
	}
}

func TestFallbackIsTold(t *testing.T) {
	s := fine()
	s.object.Spec.Fallback = &kedav1alpha1.Fallback{FailureThreshold: 3, Replicas: 6}
	s.engine = &activation.State{}
	s.engine.Conditions.SetCondition("Fallback", "True", "FallbackExists", "At least one trigger is falling back on this scaled object")
	s.object.Status.Conditions = *kedav1alpha1.GetInitializedConditions()
	s.object.Status.Conditions.SetReadyCondition("True", "ScaledObjectReady", "")
	on := conclude(s, decide(s))
	want := []happening{{"Normal", "", "ScaledObjectFallbackActivated", "ScaledObject fallback is active"}}
	if diff := cmp.Diff(want, tell(s.object, on, nil), cmp.AllowUnexported(happening{})); diff != "" {
		t.Error(diff)
	}
	s.object = on
	s.engine.Conditions.SetCondition("Fallback", "False", "NoFallbackFound", "")
	want = []happening{{"Normal", "", "ScaledObjectFallbackDeactivated", "ScaledObject fallback is no longer active"}}
	if diff := cmp.Diff(want, tell(s.object, conclude(s, decide(s)), nil), cmp.AllowUnexported(happening{})); diff != "" {
		t.Error(diff)
	}
}

func TestHPAActive(t *testing.T) {
	for name, tt := range map[string]struct {
		said []autoscalingv2.HorizontalPodAutoscalerCondition
		want kedav1alpha1.Condition
	}{
		"nothing said, nothing shown": {nil, kedav1alpha1.Condition{}},
		"it scales": {
			[]autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "ScalingActive", Status: "True", Reason: "ValidMetricFound"}},
			kedav1alpha1.Condition{Status: "True", Reason: "HPAActive", Message: "HPA is actively scaling"},
		},
		"at zero it is idle, not ill": {
			[]autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "ScalingActive", Status: "False", Reason: "ScalingDisabled", Message: "at zero"}},
			kedav1alpha1.Condition{Status: "True", Reason: "ScalingDisabled", Message: "at zero"},
		},
		"a failure without a reason has one": {
			[]autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "ScalingActive", Status: "False", Message: "no"}},
			kedav1alpha1.Condition{Status: "False", Reason: "HPAMetricsUnavailable", Message: "HPA is not actively scaling: no"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fine()
			s.horizontal = decide(s).create
			s.horizontal.Status.Conditions = tt.said
			if diff := cmp.Diff(tt.want, conditionOf(conclude(s, decide(s)), "HPAActive")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingChangedIsNoNews(t *testing.T) {
	at := metav1.NewTime(born)
	later, muchLater := metav1.NewTime(born.Add(refresh/2)), metav1.NewTime(born.Add(refresh))
	for name, tt := range map[string]struct {
		before, after kedav1alpha1.ScaledObjectStatus
		want          bool
	}{
		"nothing":               {kedav1alpha1.ScaledObjectStatus{}, kedav1alpha1.ScaledObjectStatus{Health: map[string]kedav1alpha1.HealthStatus{}}, false},
		"the first activity":    {kedav1alpha1.ScaledObjectStatus{}, kedav1alpha1.ScaledObjectStatus{LastActiveTime: &at}, true},
		"activity that goes on": {kedav1alpha1.ScaledObjectStatus{LastActiveTime: &at}, kedav1alpha1.ScaledObjectStatus{LastActiveTime: &later}, false},
		"activity for long":     {kedav1alpha1.ScaledObjectStatus{LastActiveTime: &at}, kedav1alpha1.ScaledObjectStatus{LastActiveTime: &muchLater}, true},
		"another name":          {kedav1alpha1.ScaledObjectStatus{}, kedav1alpha1.ScaledObjectStatus{HpaName: "x"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := news(tt.before, tt.after); got != tt.want {
				t.Errorf("news: %v, want %v", got, tt.want)
			}
		})
	}
}

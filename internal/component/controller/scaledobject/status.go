package scaledobject

import (
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/domain/render/horizontal"
	"ebb.dev/ebb/internal/platform/kube"
)

// Reasons and messages of the conditions that are worked out here.
const (
	unpausedReason  = "ScaledObjectUnpaused"
	unpausedMessage = "pause annotation removed for ScaledObject"
	noFallback      = "NoFallbackFound"
	noFallbackMsg   = "No fallbacks are active on this scaled object"
)

// conclude returns the ScaledObject as its status is to be, once the plan was acted on.
func conclude(s state, p plan) *kedav1alpha1.ScaledObject {
	next := s.object.DeepCopy()
	st := &next.Status
	if !st.Conditions.AreInitialized() {
		st.Conditions = initialized(st.Conditions)
	}
	paused := next.NeedToBePausedByAnnotation()
	triggers, auths := kedav1alpha1.CombinedTriggersAndAuthenticationsTypes(next.Spec.Triggers)
	st.TriggersTypes, st.AuthenticationsTypes = &triggers, &auths
	if !paused && s.check() == nil {
		named(st, s.target)
	}
	if p.metrics != nil {
		if st.HpaName = horizontal.Name(next); s.target.unshown {
			st.HpaName = ""
		}
		st.ExternalMetricNames, st.ResourceMetricNames = p.metrics.External, p.metrics.Resource
		st.CompositeScalerName = p.metrics.Composite
		st.Health = healthOf(st.Health, p.metrics.External)
	}
	pausing(next, paused, p.problem)
	if s.engine != nil && (p.problem == nil || !p.problem.whole) && !paused {
		decided(s, st)
	}
	ready(s, st, p, paused)
	if next.Spec.Fallback == nil {
		st.Conditions.SetFallbackCondition(metav1.ConditionFalse, noFallback, noFallbackMsg)
	}
	scaling(s, st, paused)
	return next
}

// initialized completes conditions by those that every ScaledObject has.
func initialized(have kedav1alpha1.Conditions) kedav1alpha1.Conditions {
	out := *kedav1alpha1.GetInitializedConditions()
	for _, c := range have {
		out.SetCondition(c.Type, c.Status, c.Reason, c.Message)
	}
	return out
}

// healthOf keeps what is known of metrics that are still there.
func healthOf(health map[string]kedav1alpha1.HealthStatus, names []string) map[string]kedav1alpha1.HealthStatus {
	out := map[string]kedav1alpha1.HealthStatus{}
	for _, name := range names {
		if h, ok := health[name]; ok {
			out[name] = h
		}
	}
	return out
}

// pausing writes whether the ScaledObject is paused, wholly or in a direction.
func pausing(next *kedav1alpha1.ScaledObject, paused bool, p *problem) {
	st := &next.Status
	was := st.Conditions.GetPausedCondition()
	switch {
	case paused || next.NeedToPauseScaleIn() || next.NeedToPauseScaleOut():
		st.Conditions.SetPausedCondition(metav1.ConditionTrue,
			kedav1alpha1.ScaledObjectConditionPausedReason, kedav1alpha1.ScaledObjectConditionPausedMessage)
	case was.IsTrue():
		st.Conditions.SetPausedCondition(metav1.ConditionFalse, unpausedReason, unpausedMessage)
	}
	switch count, err := next.GetPausedReplicaCount(); {
	case !paused:
		st.PausedReplicaCount = nil
	case err == nil && p == nil:
		st.PausedReplicaCount = count
	}
}

// decided takes over what the engine decided.
func decided(s state, st *kedav1alpha1.ScaledObjectStatus) {
	e := s.engine
	for _, c := range e.Conditions {
		if c.Type != kedav1alpha1.ConditionReady {
			st.Conditions.SetCondition(c.Type, c.Status, c.Reason, c.Message)
		}
	}
	st.TriggersActivity, st.Health = e.TriggersActivity, e.Health
	if e.LastActiveTime != nil {
		st.LastActiveTime = new(e.LastActiveTime.Rfc3339Copy())
	}
}

// ready writes whether all works.
func ready(s state, st *kedav1alpha1.ScaledObjectStatus, p plan, paused bool) {
	if p.problem != nil {
		st.Conditions.SetReadyCondition(metav1.ConditionFalse, p.problem.reason, p.problem.message)
		if p.problem.whole {
			st.Conditions.SetActiveCondition(metav1.ConditionUnknown, "UnknownState", "ScaledObject check failed")
		}
		return
	}
	message := kedav1alpha1.ScaledObjectConditionReadySuccessMessage
	if paused {
		message = kedav1alpha1.ScaledObjectConditionPausedMessage
	}
	st.Conditions.SetReadyCondition(metav1.ConditionTrue, kedav1alpha1.ScaledObjectConditionReadySuccessReason, message)
	if s.engine == nil || paused {
		return
	}
	if said := condition(s.engine.Conditions, kedav1alpha1.ConditionReady); said != nil && said.Status != metav1.ConditionTrue {
		st.Conditions.SetReadyCondition(said.Status, said.Reason, said.Message)
	}
}

// scaling mirrors whether the HorizontalPodAutoscaler scales; as long as it says nothing, what it said
// last stands.
func scaling(s state, st *kedav1alpha1.ScaledObjectStatus, paused bool) {
	if s.horizontal == nil || paused || st.HpaName != s.horizontal.Name {
		return
	}
	said, ok := kube.Scaling(s.horizontal)
	switch reason := said.Reason; {
	case !ok:
	case said.Status == "True":
		st.Conditions.SetHPAActiveCondition(metav1.ConditionTrue, kedav1alpha1.ScaledObjectConditionHPAActiveReason, "HPA is actively scaling")
	case reason == kedav1alpha1.ScaledObjectConditionHPAScalingDisabledReason:
		st.Conditions.SetHPAActiveCondition(metav1.ConditionTrue, reason, said.Message)
	default:
		if reason == "" {
			reason = kedav1alpha1.ScaledObjectConditionHPAMetricsUnavailableReason
		}
		st.Conditions.SetHPAActiveCondition(metav1.ConditionFalse, reason, "HPA is not actively scaling: "+said.Message)
	}
}

func condition(of kedav1alpha1.Conditions, kind kedav1alpha1.ConditionType) *kedav1alpha1.Condition {
	for i := range of {
		if of[i].Type == kind {
			return &of[i]
		}
	}
	return nil
}

// refresh is how old the time of the last activity may get in the API while activity goes on.
const refresh = 5 * time.Minute

// news tells whether a status says anything new. A later time of activity does only from nothing, or
// after a while.
func news(before, after kedav1alpha1.ScaledObjectStatus) bool {
	if before.LastActiveTime != nil && after.LastActiveTime != nil &&
		after.LastActiveTime.Sub(before.LastActiveTime.Time) < refresh {
		after.LastActiveTime = before.LastActiveTime
	}
	return !equality.Semantic.DeepEqual(before, after)
}

package scaledjob

import (
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons and messages of conditions.
const (
	reasonReady      = "ScaledJobReady"
	messageReady     = "ScaledJob is defined correctly and is ready to scaling"
	messagePaused    = "ScaledJob is paused, skipping reconcile loop"
	reasonFailed     = "ScaledJobCheckFailed"
	reasonUnknown    = "UnknownState"
	messageUnchecked = "ScaledJob check failed"
)

// plan is what is to be written and told.
type plan struct {
	status   kedav1alpha1.ScaledJobStatus
	happened []happening
	problem  *problem
}

// decide works out the status, and what is to be told with it. It is a pure function of the state.
func decide(s state) plan {
	p := plan{status: *s.object.Status.DeepCopy(), problem: s.problem}
	c := &p.status.Conditions
	if !c.AreInitialized() {
		*c = *kedav1alpha1.GetInitializedConditions()
	}
	was := c.DeepCopy()
	paused := s.object.NeedToBePausedByAnnotation()
	decidePaused(&p, paused)
	switch {
	case s.problem != nil:
		c.SetReadyCondition(metav1.ConditionFalse, reasonFailed, s.problem.message)
		c.SetActiveCondition(metav1.ConditionUnknown, reasonUnknown, messageUnchecked)
	case paused:
		c.SetReadyCondition(metav1.ConditionTrue, reasonReady, messagePaused)
	default:
		decideFollowed(&p, s)
	}
	p.happened = append(p.happened, tellReady(was.GetReadyCondition(), c.GetReadyCondition(), s.problem)...)
	return p
}

// decidePaused says whether nothing is to happen, and when that changes.
func decidePaused(p *plan, paused bool) {
	c := &p.status.Conditions
	was := c.GetPausedCondition()
	switch {
	case paused && !was.IsTrue():
		c.SetPausedCondition(metav1.ConditionTrue, kedav1alpha1.ScaledJobConditionPausedReason, kedav1alpha1.ScaledJobConditionPausedMessage)
		p.happened = append(p.happened, pausing)
	case !paused && was.IsTrue():
		c.SetPausedCondition(metav1.ConditionFalse, kedav1alpha1.ScaledJobConditionUnpausedReason, kedav1alpha1.ScaledJobConditionUnpausedMessage)
		p.happened = append(p.happened, unpausing)
	}
}

// decideFollowed says what the engine does. Before it decided anything, what was said stays, unless it
// was that nothing is followed.
func decideFollowed(p *plan, s state) {
	st := &p.status
	triggers, authentications := kedav1alpha1.CombinedTriggersAndAuthenticationsTypes(s.object.Spec.Triggers)
	st.TriggersTypes, st.AuthenticationsTypes = &triggers, &authentications
	if s.engine == nil {
		ready := st.Conditions.GetReadyCondition()
		if ready.Reason == "" || ready.Reason == reasonFailed || ready.Message == messagePaused {
			st.Conditions.SetReadyCondition(metav1.ConditionTrue, reasonReady, messageReady)
		}
		return
	}
	for _, c := range s.engine.Conditions {
		st.Conditions.SetCondition(c.Type, c.Status, c.Reason, c.Message)
	}
	if s.engine.LastActiveTime != nil {
		st.LastActiveTime = s.engine.LastActiveTime
	}
	st.TriggersActivity, st.ExternalMetricNames = s.engine.TriggersActivity, s.engine.ExternalMetricNames
}

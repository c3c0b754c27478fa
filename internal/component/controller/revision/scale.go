package revision

import (
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/render"
)

const (
	noTraffic        = "NoTraffic"
	noTrafficMessage = "The target is not receiving traffic."
	queued           = "Queued"
	queuedMessage    = "Requests to the target are being buffered as resources are provisioned."
	timedOut         = "TimedOut"
	timedOutMessage  = "The target could not be activated."
	notServing       = "K8s Service is not ready" // what a ServerlessService says of itself then
)

// scaleStatus brings a PodAutoscaler's status up to what is wanted and ready now, by upstream's
// table:
//
//	wanted   ready  Active was  Active becomes
//	0        any    any         False (NoTraffic; TimedOut if it never became active)
//	>0       <min   any         Unknown (Queued)
//	>0       >=min  any         True
//	unknown  <min   False       False
//	unknown  <min   else        Unknown (Queued)
//	unknown  >=min  False       False
//	unknown  >=min  else        True
//
// min is the larger of minScale and 1, and of minScale and the initial scale until that was reached
// once, which is never forgotten.
func scaleStatus(s state, st *autoscalingv1alpha1.PodAutoscalerStatus) {
	begin(s, st)
	wanted := int32(-1)
	if s.scaled != nil {
		wanted = s.scaled.Desired
	}
	ready := int32(s.ready)
	st.ActualScale = &ready
	if wanted >= 0 || st.DesiredScale == nil {
		st.DesiredScale = &wanted
	}

	floor := threshold(s, st)
	if ready >= floor || wasReady(s.revision) {
		st.MarkScaleTargetInitialized()
	}
	markActive(s, st, wanted, ready, floor)
}

// begin fills in what both classes show alike. Without an instance nothing serves but the gateway.
func begin(s state, st *autoscalingv1alpha1.PodAutoscalerStatus) {
	st.InitializeConditions()
	st.ServiceName, st.MetricsServiceName = s.revision.Name, render.PrivateServiceName(s.revision.Name)
	if s.ready > 0 {
		st.MarkSKSReady()
	} else {
		st.MarkSKSNotReady(notServing)
	}
}

func markActive(s state, st *autoscalingv1alpha1.PodAutoscalerStatus, wanted, ready, floor int32) {
	known := wanted > 0 || !st.IsInactive()
	switch {
	case wanted == 0 || floor == 0:
		if floor > 0 && (s.scaled != nil && s.scaled.TimedOut || inactiveFor(st, timedOut)) {
			st.MarkInactive(timedOut, timedOutMessage)
		} else {
			st.MarkInactive(noTraffic, noTrafficMessage)
		}
	case ready < floor && known:
		st.MarkActivating(queued, queuedMessage)
	case ready < floor:
		st.MarkInactive(noTraffic, noTrafficMessage)
	case known:
		st.MarkActive()
	}
}

// inactiveFor tells whether Active already is False for the reason.
func inactiveFor(st *autoscalingv1alpha1.PodAutoscalerStatus, reason string) bool {
	return st.IsInactive() && st.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive).GetReason() == reason
}

// threshold is how many instances must be ready for the Revision to count as active.
func threshold(s state, st *autoscalingv1alpha1.PodAutoscalerStatus) int32 {
	least := s.spec.Min
	if s.revision.GetRoutingState() == servingv1.RoutingStateReserve {
		least = 0
	}
	if !st.IsScaleTargetInitialized() && !wasReady(s.revision) {
		return max(least, s.spec.Initial)
	}
	return max(least, 1)
}

// wasReady tells whether the Revision itself says that it once came up, should its PodAutoscaler
// have been lost.
func wasReady(rev *servingv1.Revision) bool {
	return rev.Status.GetCondition(servingv1.RevisionConditionReady).IsTrue()
}

package scaledobject

import (
	"fmt"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ebb.dev/ebb/internal/domain/render/horizontal"
)

// plan is what is to be written.
type plan struct {
	// unfollow has the engine let go.
	unfollow bool
	// create, update and remove are HorizontalPodAutoscalers.
	create, update *autoscalingv2.HorizontalPodAutoscaler
	remove         []*autoscalingv2.HorizontalPodAutoscaler
	// replicas is what the target is brought to; nil leaves it.
	replicas *int32
	// metrics are what the HorizontalPodAutoscaler scales by; nil if there is none to be.
	metrics *horizontal.Metrics
	problem *problem
}

// decide works out what is to be written. It is a pure function of the state.
func decide(s state) plan {
	if s.object.NeedToBePausedByAnnotation() {
		return decidePaused(s)
	}
	if p := s.check(); p != nil {
		return plan{problem: p}
	}
	p := plan{problem: s.checkFollowed()}
	if s.followed == nil || p.problem != nil && p.problem.whole {
		return p
	}
	metrics, err := horizontal.Assemble(s.object, s.followed.Specs)
	if err != nil {
		p.problem = failing(atHorizontal, err)
		return p
	}
	p.metrics = &metrics
	if s.target.unshown {
		p.remove = owned(s)
		return p
	}
	return decideHorizontal(s, p)
}

// decideHorizontal works out the HorizontalPodAutoscaler that shows the plan's metrics.
func decideHorizontal(s state, p plan) plan {
	if h := s.horizontal; h != nil && !adoptable(s.object, h) {
		p.problem, p.metrics = failing(atHorizontal, anothers(h)), nil
		return p
	}
	want := horizontal.Object(s.object, s.target.kind, p.metrics.Specs)
	switch have := s.horizontal; {
	case have == nil:
		p.create = want
	case horizontal.Differs(want, have):
		p.update = have.DeepCopy()
		p.update.Spec, p.update.Labels, p.update.Annotations, p.update.OwnerReferences = want.Spec, want.Labels, want.Annotations, want.OwnerReferences
	}
	if s.former != nil && metav1.IsControlledBy(s.former, s.object) {
		p.remove = append(p.remove, s.former)
	}
	return p
}

// owned lists the HorizontalPodAutoscalers that are the ScaledObject's.
func owned(s state) []*autoscalingv2.HorizontalPodAutoscaler {
	var out []*autoscalingv2.HorizontalPodAutoscaler
	for _, h := range []*autoscalingv2.HorizontalPodAutoscaler{s.horizontal, s.former} {
		if h != nil && metav1.IsControlledBy(h, s.object) {
			out = append(out, h)
		}
	}
	return out
}

// decidePaused has nobody scale the target, and brings it to the number of the annotation if there
// is one.
func decidePaused(s state) plan {
	p := plan{unfollow: true, problem: s.checkPaused()}
	if s.horizontal != nil && adoptable(s.object, s.horizontal) {
		p.remove = append(p.remove, s.horizontal)
	}
	if s.former != nil && metav1.IsControlledBy(s.former, s.object) {
		p.remove = append(p.remove, s.former)
	}
	if count, err := s.object.GetPausedReplicaCount(); err == nil && count != nil && s.target.replicas != nil && *s.target.replicas != *count {
		p.replicas = count
	}
	return p
}

// adoptable tells whether a HorizontalPodAutoscaler is, or can become, the ScaledObject's: nobody's
// can, admission having seen to it that it is meant; and that of a former object of the same name.
func adoptable(so *kedav1alpha1.ScaledObject, h *autoscalingv2.HorizontalPodAutoscaler) bool {
	owner := metav1.GetControllerOf(h)
	return owner == nil || owner.UID == so.UID || owner.Kind == "ScaledObject" && owner.Name == so.Name
}

func anothers(h *autoscalingv2.HorizontalPodAutoscaler) error {
	owner := metav1.GetControllerOf(h)
	return fmt.Errorf("horizontal pod autoscaler %s belongs to %s %s", h.Name, owner.Kind, owner.Name)
}

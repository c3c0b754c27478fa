package scaledobject

import (
	"errors"
	"fmt"
	"strings"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"ebb.dev/ebb/internal/domain/activation"
)

// Reasons of conditions and events.
const (
	reasonCheckFailed  = "ScaledObjectCheckFailed"
	reasonUpdateFailed = "ScaledObjectUpdateFailed"
	reasonNotBuiltIn   = "TriggerNotBuiltIn"
)

// What goes before the cause in a condition.
const (
	atTarget      = "ScaledObject doesn't have correct scaleTargetRef specification"
	atBounds      = "ScaledObject doesn't have correct Idle/Min/Max Replica Counts specification"
	atTriggers    = "ScaledObject doesn't have correct triggers specification"
	atHorizontal  = "failed to ensure HPA is correctly created for ScaledObject"
	atPausing     = "failed to delete HPA for paused ScaledObject"
	atPausedCount = "failed to scale target to paused replica count"
)

// A problem keeps a ScaledObject from being ready.
type problem struct {
	reason, message string
	// whole says that nothing of it is scaled; otherwise single triggers are not.
	whole bool
	// details are events of their own, before the one with the message.
	details []happening
	// passing says that it may be over without anybody telling.
	passing bool
}

func failing(at string, err error) *problem {
	return &problem{reason: reasonCheckFailed, message: at + ": " + err.Error(), whole: true}
}

// soonOver marks a problem as one to look at again.
func (p *problem) soonOver() *problem {
	p.passing = true
	return p
}

var errNameless = errors.New("ScaledObject.spec.scaleTargetRef.name is missing")

// follows tells whether the engine is to follow the ScaledObject.
func (s *state) follows() bool {
	return !s.object.NeedToBePausedByAnnotation() && s.check() == nil
}

// check finds the first reason for which nothing of the ScaledObject can be scaled.
func (s *state) check() *problem {
	so := s.object
	if so.Spec.ScaleTargetRef == nil || so.Spec.ScaleTargetRef.Name == "" {
		return failing(atTarget, errNameless)
	}
	if p := s.checkTarget(); p != nil {
		return p
	}
	if err := kedav1alpha1.CheckReplicaCountBoundsAreValid(so); err != nil {
		return failing(atBounds, err)
	}
	if err := kedav1alpha1.ValidateTriggers(so.Spec.Triggers); err != nil {
		return failing(atTriggers, err)
	}
	return nil
}

func (s *state) checkTarget() *problem {
	switch t := s.target; {
	case t.unknown != nil:
		p := failing(atTarget, t.unknown).soonOver()
		p.details = []happening{{corev1.EventTypeWarning, failed, reasonUpdateFailed, t.unknown.Error()}}
		return p
	case t.missing():
		p := failing(atTarget, t.err).soonOver()
		p.details = []happening{{corev1.EventTypeWarning, failed, reasonCheckFailed, "Target resource doesn't exist"}}
		return p
	case t.bare():
		p := failing(atTarget, t.err).soonOver()
		p.details = []happening{{corev1.EventTypeWarning, failed, reasonCheckFailed, "Target resource doesn't expose /scale subresource"}}
		return p
	case t.err != nil:
		return failing(atTarget, t.err).soonOver()
	}
	return nil
}

// checkPaused finds the reason for which a paused target cannot be brought to its number of replicas.
func (s *state) checkPaused() *problem {
	count, err := s.object.GetPausedReplicaCount()
	switch {
	case err != nil:
		return failing(atPausedCount, fmt.Errorf("failed to parse paused replica count: %w", err))
	case count == nil:
		return nil
	case s.object.Spec.ScaleTargetRef == nil || s.object.Spec.ScaleTargetRef.Name == "":
		return failing(atTarget, errNameless)
	case s.target.unknown != nil:
		return failing(atPausedCount, fmt.Errorf("failed to parse Group, Version, Kind, Resource: %w", s.target.unknown)).soonOver()
	case s.target.err != nil:
		return failing(atPausedCount, fmt.Errorf("failed to get scale for target resource: %w", s.target.err)).soonOver()
	}
	return nil
}

// checkFollowed tells what the engine could not do: for all the object, or for some of its triggers,
// while the others work.
func (s *state) checkFollowed() *problem {
	if s.followErr != nil {
		return failing(atHorizontal, s.followErr).soonOver()
	}
	var broken, absent []string
	for _, f := range s.followed.Failed {
		if f.NotBuiltIn {
			absent = append(absent, notBuiltIn(f))
		} else {
			broken = append(broken, f.Err.Error())
		}
	}
	whole := len(s.followed.Specs) == 0
	switch {
	case len(broken) > 0:
		p := failing(atHorizontal, errors.New(strings.Join(append(broken, absent...), "; ")))
		p.whole = whole
		return p
	case len(absent) > 0:
		return &problem{reason: reasonNotBuiltIn, message: strings.Join(absent, "; "), whole: whole}
	}
	return nil
}

// notBuiltIn says of a trigger that it is not part of ebb, and what to do.
func notBuiltIn(f activation.FailedTrigger) string {
	name := fmt.Sprintf("trigger %d", f.Index)
	if f.Name != "" {
		name = fmt.Sprintf("trigger %d (%s)", f.Index, f.Name)
	}
	return fmt.Sprintf("%s: type %q is not built in; serve it by a program of the external scaler protocol and use type %q or %q",
		name, f.Type, "external", "external-push")
}

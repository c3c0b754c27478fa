package configuration

import (
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
)

// state is all that a decision about a Configuration rests on.
type state struct {
	configuration *servingv1.Configuration
	revisions     []*servingv1.Revision // all that carry the Configuration's label
	named         *servingv1.Revision   // the one of the wanted name, whoever's it is; nil if there is none
}

// plan is what is to be done.
type plan struct {
	create *servingv1.Revision            // nil when the revision is there
	after  *servingv1.Configuration       // the Configuration with its new status
	status *servingv1.ConfigurationStatus // within after
	events []event
}

type event struct{ kind, reason, message string }

// decide makes the plan.
func decide(s state, now time.Time) plan {
	p := begin(s.configuration)
	defer func() { controller.Finish(p.after, s.configuration) }()

	latest := latestCreated(s)
	switch {
	case latest != nil:
	case s.named != nil:
		// The name is another's, or was used for another spec.
		p.status.MarkRevisionCreationFailed(taken(s.named.Name))
		return p
	default:
		p.create = render.Revision(s.configuration, now)
		p.status.SetLatestCreatedRevisionName(p.create.Name)
		return p
	}
	p.status.SetLatestCreatedRevisionName(latest.Name)
	p.propagate(s, latest)
	p.chooseReady(s, latest)
	return p
}

func begin(cfg *servingv1.Configuration) plan {
	after := cfg.DeepCopy()
	controller.Begin(after)
	return plan{after: after, status: &after.Status}
}

func taken(name string) string {
	return "revisions.serving.knative.dev " + strconv.Quote(name) + " already exists"
}

// latestCreated is the revision of the present generation, or the one the template names, provided
// that it is what the template says.
func latestCreated(s state) *servingv1.Revision {
	if s.configuration.Spec.Template.Name != "" {
		if s.named != nil && controller.Matches(s.configuration, s.named) {
			return s.named
		}
		return nil
	}
	generation := strconv.FormatInt(s.configuration.Generation, 10)
	for _, rev := range s.revisions {
		if rev.Labels[serving.ConfigurationGenerationLabelKey] == generation && metav1.IsControlledBy(rev, s.configuration) {
			return rev
		}
	}
	return nil
}

// propagate takes over what the latest created revision says of itself.
func (p *plan) propagate(s state, latest *servingv1.Revision) {
	c := latest.Status.GetCondition(servingv1.RevisionConditionReady)
	switch {
	case c.IsTrue():
		if p.status.LatestReadyRevisionName == "" {
			p.event("Normal", "ConfigurationReady", "Configuration becomes ready")
		}
	case c.IsFalse():
		before := s.configuration.Status.GetCondition(servingv1.ConfigurationConditionReady)
		p.status.MarkLatestCreatedFailed(latest.Name, c.GetMessage())
		after := p.status.GetCondition(servingv1.ConfigurationConditionReady)
		switch {
		case before.IsFalse() && before.GetMessage() == after.GetMessage():
		case latest.Name == p.status.LatestReadyRevisionName:
			p.event("Warning", "LatestReadyFailed", "Latest ready revision "+strconv.Quote(latest.Name)+" has failed")
		default:
			p.event("Warning", "LatestCreatedFailed", "Latest created revision "+strconv.Quote(latest.Name)+" has failed")
		}
	case c != nil:
		p.wait(latest, c.GetReason(), c.GetMessage())
	}
}

// wait leaves Ready unknown, and says why where there is trouble to tell of; the ordinary steps of a
// start stay silent, as upstream's.
func (p *plan) wait(latest *servingv1.Revision, reason, message string) {
	switch reason {
	case "", servingv1.ReasonDeploying, servingv1.ReasonResolvingDigests:
		if p.status.LatestReadyRevisionName != latest.Name {
			p.status.SetLatestCreatedRevisionName(latest.Name)
		}
		return
	}
	controller.Manage(p.after).MarkUnknown(servingv1.ConfigurationConditionReady,
		reason, "Revision %q is not ready: %s", latest.Name, message)
}

// chooseReady names the newest ready revision between the one known as ready and the present.
func (p *plan) chooseReady(s state, latest *servingv1.Revision) {
	oldest := int64(0)
	for _, rev := range s.revisions {
		if rev.Name == p.status.LatestReadyRevisionName {
			oldest = generationOf(rev)
		}
	}
	candidates := slices.Clone(s.revisions)
	candidates = slices.DeleteFunc(candidates, func(r *servingv1.Revision) bool {
		return r.Name != latest.Name && generationOf(r) < oldest
	})
	slices.SortStableFunc(candidates, func(a, b *servingv1.Revision) int {
		switch {
		case a.Name == latest.Name:
			return -1
		case b.Name == latest.Name:
			return 1
		}
		return int(generationOf(b) - generationOf(a))
	})
	for _, rev := range candidates {
		if !rev.IsReady() {
			continue
		}
		if p.status.LatestReadyRevisionName != rev.Name {
			p.event("Normal", "LatestReadyUpdate", "LatestReadyRevisionName updated to "+strconv.Quote(rev.Name))
		}
		p.status.SetLatestReadyRevisionName(rev.Name)
		return
	}
}

func generationOf(rev *servingv1.Revision) int64 {
	n, err := strconv.ParseInt(rev.Labels[serving.ConfigurationGenerationLabelKey], 10, 64)
	if err != nil {
		return 0 // a hand-made label sorts as the oldest
	}
	return n
}

func (p *plan) event(kind, reason, message string) {
	p.events = append(p.events, event{kind, reason, message})
}

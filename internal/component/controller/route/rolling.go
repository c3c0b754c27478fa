package route

import (
	"time"

	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/domain/traffic/rollout"
)

// kept is the state of rollouts that an Ingress carries; empty when it carries none or is nil.
func kept(ingress *netv1alpha1.Ingress) rollout.Rollout {
	if ingress == nil {
		return rollout.Rollout{}
	}
	r, _ := rollout.Parse(ingress.Annotations[netapi.RolloutAnnotationKey])
	return r
}

// roll works out how far the Route's traffic is now on its way to the latest revisions.
func roll(s state, a assignment) rollout.Rollout {
	goals := a.goals()
	duration := s.route.RolloutDuration().Truncate(time.Second)
	if duration == 0 {
		duration = time.Duration(s.settings.Network.RolloutDurationSecs) * time.Second
	}
	before := kept(s.ingress)
	if duration <= 0 || len(before.Configurations) == 0 {
		return goals
	}
	before = before.Without(func(name string) bool { return s.revisions[name] == nil })
	if s.ingress.IsReady() && !s.route.Status.GetCondition(servingv1.RouteConditionIngressReady).IsTrue() {
		before = before.Observe(s.now, duration)
	}
	return goals.Step(before, s.now)
}

// goals is the state when all rollouts are over.
func (a *assignment) goals() rollout.Rollout {
	var out []rollout.Configuration
	for tag, targets := range a.byTag {
		for _, t := range targets {
			if !truth(t.latest) || t.percent == 0 {
				continue
			}
			out = append(out, rollout.Configuration{
				Name: t.configuration, Tag: tag, Percent: int(t.percent),
				Revisions: []rollout.Revision{{Name: t.revision, Percent: int(t.percent)}},
			})
		}
	}
	return rollout.New(out)
}

// spread puts all revisions that have a part of it in the place of each host's latest.
func (a *assignment) spread(r rollout.Rollout) {
	for tag, targets := range a.byTag {
		var out []target
		for _, t := range targets {
			c := r.Of(tag, t.configuration)
			if c == nil || !truth(t.latest) {
				out = append(out, t)
				continue
			}
			for _, rev := range c.Revisions {
				part := t
				part.revision, part.percent = rev.Name, int64(rev.Percent)
				out = append(out, part)
			}
		}
		a.byTag[tag] = out
	}
}

package service

import (
	"context"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
)

// state is all that a decision about a Service rests on.
type state struct {
	service       *servingv1.Service
	configuration *servingv1.Configuration // nil if there is none
	route         *servingv1.Route         // nil if there is none
	named         *servingv1.Revision      // the revision the template names; nil if there is none
}

// plan is what is to be done; nil fields mean nothing.
type plan struct {
	createConfiguration *servingv1.Configuration
	updateConfiguration *servingv1.Configuration
	createRoute         *servingv1.Route
	updateRoute         *servingv1.Route
	after               *servingv1.Service       // the Service with its new status
	status              *servingv1.ServiceStatus // within after
}

// writes tells whether the plan changes a child.
func (p plan) writes() bool {
	return p.createConfiguration != nil || p.updateConfiguration != nil || p.createRoute != nil || p.updateRoute != nil
}

// decide makes the plan. ctx carries the cluster's defaults only.
func decide(ctx context.Context, s state) plan {
	after := s.service.DeepCopy()
	p := plan{after: after, status: &after.Status}
	controller.Begin(after)
	if decideConfiguration(ctx, s, &p) {
		decideRoute(ctx, s, &p)
	}
	controller.Finish(after, s.service)
	return p
}

// decideConfiguration tells whether the Route's turn has come.
func decideConfiguration(ctx context.Context, s state, p *plan) bool {
	named := s.service.Spec.Template.Name != ""
	cfg := s.configuration
	if cfg == nil {
		p.createConfiguration = render.Configuration(s.service, nil)
		p.status.MarkConfigurationNotReconciled()
		return !named
	}
	if !metav1.IsControlledBy(cfg, s.service) {
		p.status.MarkConfigurationNotOwned(cfg.Name)
		return false
	}
	p.updateConfiguration = changedConfiguration(ctx, s)
	if p.updateConfiguration != nil || cfg.Generation != cfg.Status.ObservedGeneration {
		p.status.MarkConfigurationNotReconciled()
		// A revision's name may be taken: the Route must not lead there before that is known.
		return !named
	}
	p.status.PropagateConfigurationStatus(&cfg.Status)
	if s.named != nil && !controller.Matches(cfg, s.named) {
		p.status.MarkRevisionNameTaken(s.named.Name)
		return false
	}
	return true
}

func decideRoute(ctx context.Context, s state, p *plan) {
	switch {
	case s.route == nil:
		p.createRoute = render.Route(s.service)
		p.status.MarkRouteNotReconciled()
		return
	case !metav1.IsControlledBy(s.route, s.service):
		p.status.MarkRouteNotOwned(s.route.Name)
		return
	}
	p.updateRoute = changedRoute(ctx, s)
	if p.updateRoute != nil || s.route.Generation != s.route.Status.ObservedGeneration {
		p.status.MarkRouteNotReconciled()
		return
	}
	p.status.PropagateRouteStatus(&s.route.Status)
	if cfg := s.configuration; cfg != nil {
		if p.status.GetCondition(servingv1.ServiceConditionRoutesReady).IsTrue() && !migrated(s.route, cfg) {
			p.status.MarkRouteNotYetReady()
		}
		explain(p.status, cfg)
	}
}

// explain lets a reason that the Configuration knows (an image that cannot be pulled, say) stand in
// the Service's Ready, where the Route would only say that no Revision is ready.
func explain(status *servingv1.ServiceStatus, cfg *servingv1.Configuration) {
	c := cfg.Status.GetCondition(servingv1.ConfigurationConditionReady)
	if !c.IsTrue() && c.GetReason() != "" && cfg.Generation == cfg.Status.ObservedGeneration {
		status.PropagateConfigurationStatus(&cfg.Status)
	}
}

// migrated tells whether the Route's traffic already is what its spec and the Configuration's latest
// ready revision ask for.
func migrated(route *servingv1.Route, cfg *servingv1.Configuration) bool {
	if len(route.Spec.Traffic) != len(route.Status.Traffic) {
		return false
	}
	want := route.Spec.DeepCopy().Traffic
	for i := range want {
		if want[i].ConfigurationName == cfg.Name {
			want[i].RevisionName, want[i].ConfigurationName = cfg.Status.LatestReadyRevisionName, ""
		}
	}
	return cmp.Equal(want, route.Status.Traffic,
		cmpopts.IgnoreFields(servingv1.TrafficTarget{}, "URL", "LatestRevision"))
}

// changedConfiguration returns the Configuration to write, or nil when it already is as wanted.
// Both sides are defaulted first, so that a new default alone never makes a new revision.
func changedConfiguration(ctx context.Context, s state) *servingv1.Configuration {
	want, have := render.Configuration(s.service, s.configuration), s.configuration.DeepCopy()
	defaulted := want.DeepCopy()
	defaulted.SetDefaults(ctx)
	have.SetDefaults(ctx)
	if equality.Semantic.DeepEqual(defaulted.Spec, have.Spec) && sameMeta(want, have) {
		return nil
	}
	out := s.configuration.DeepCopy()
	out.Spec, out.Labels, out.Annotations = want.Spec, want.Labels, want.Annotations
	return out
}

// changedRoute returns the Route to write, or nil when it already is as wanted.
func changedRoute(ctx context.Context, s state) *servingv1.Route {
	want, have := render.Route(s.service), s.route.DeepCopy()
	defaulted := want.DeepCopy()
	defaulted.SetDefaults(ctx)
	have.SetDefaults(ctx)
	if equality.Semantic.DeepEqual(defaulted.Spec, have.Spec) && sameMeta(want, have) {
		return nil
	}
	out := s.route.DeepCopy()
	out.Spec, out.Labels, out.Annotations = want.Spec, want.Labels, want.Annotations
	return out
}

func sameMeta(a, b metav1.Object) bool {
	return equality.Semantic.DeepEqual(a.GetLabels(), b.GetLabels()) &&
		equality.Semantic.DeepEqual(a.GetAnnotations(), b.GetAnnotations())
}

package route

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	apisconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/certificate"
	"ebb.dev/ebb/internal/domain/render"
)

// decideIngress plans what the gateway is told and what the Ingress shows of it.
func (p *plan) decideIngress(s state, a assignment, hosts map[string]host) {
	if s.ingress != nil && !metav1.IsControlledBy(s.ingress, s.route) {
		controller.Manage(p.after).MarkFalse(servingv1.RouteConditionIngressReady, "NotOwned",
			"There is an existing Ingress %q that we do not own.", s.ingress.Name)
		return
	}
	r := roll(s, a)
	a.spread(r)
	p.due = r.Due()
	p.ingress = ingressOf(s, a, hosts, r.String())
	if controller.Ours(p.ingress) {
		e := entryOf(s, a, hosts)
		p.entry = &e
		controller.Manage(p.after).MarkTrue(servingv1.RouteConditionIngressReady)
	} else {
		p.foreign = true
		p.followForeign(s.ingress)
	}
	if !r.Done() {
		p.status.MarkIngressRolloutInProgress()
		p.status.Traffic = listed(a, hosts, r)
	}
}

// followForeign takes over what another's gateway says of the Ingress, once it says something.
func (p *plan) followForeign(have *netv1alpha1.Ingress) {
	if controller.Answered(have, p.ingress) {
		p.status.PropagateIngressStatus(have.Status)
		return
	}
	controller.MarkUnanswered(p.after, servingv1.RouteConditionIngressReady, p.ingress)
}

// ingressOf is the Ingress as it is to be.
func ingressOf(s state, a assignment, hosts map[string]host, rollout string) *netv1alpha1.Ingress {
	p := render.IngressPlan{
		Class: controller.IngressClass(s.route.Annotations, s.settings.Network), Rollout: rollout,
		TLS: ingressTLS(hosts), Option: certificate.HTTPOption(s.settings.Network, s.route.Annotations),
		TagHeader:   s.settings.Features.TagHeaderBasedRouting == apisconfig.Enabled,
		InternalTLS: s.settings.Network.SystemInternalTLSEnabled(),
	}
	for _, tag := range a.tags() {
		h := render.Host{Tag: tag, Public: hosts[tag].public, Local: hosts[tag].local}
		for _, t := range a.byTag[tag] {
			if t.percent == 0 {
				continue
			}
			h.Backends = append(h.Backends, render.Backend{
				Revision: t.revision, Percent: int(t.percent), H2C: s.revisions[t.revision].GetProtocol() == netapi.ProtocolH2C,
			})
		}
		p.Hosts = append(p.Hosts, h)
	}
	return render.Ingress(s.route, p)
}

// writeIngress makes the Ingress what it is to be; served is what the gateway had against it.
func (r *Reconciler) writeIngress(ctx context.Context, s state, p *plan, served error) error {
	if p.ingress == nil {
		return nil
	}
	now, err := r.ingresses.Write(ctx, s.route, s.ingress, p.ingress, served)
	if now != nil && served != nil {
		p.status.PropagateIngressStatus(now.Status)
	}
	return err
}

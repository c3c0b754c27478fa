package route

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	apisconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// ours tells whether ebb's gateway answers for an Ingress.
func ours(ingress *netv1alpha1.Ingress) bool {
	return netapi.GetIngressClass(ingress.Annotations) == settings.IngressClass
}

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
	if ours(p.ingress) {
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
	if have != nil && !ours(have) && !ingressDiffers(have, p.ingress) && have.Status.ObservedGeneration == have.Generation &&
		have.Status.GetCondition(netv1alpha1.IngressConditionReady) != nil {
		p.status.PropagateIngressStatus(have.Status)
		return
	}
	controller.Manage(p.after).MarkUnknown(servingv1.RouteConditionIngressReady, "IngressNotConfigured",
		"Ingress has not yet been reconciled. Its class is %q, which ebb's gateway leaves to others; its own is %q.",
		netapi.GetIngressClass(p.ingress.Annotations), settings.IngressClass)
}

// ingressOf is the Ingress as it is to be.
func ingressOf(s state, a assignment, hosts map[string]host, rollout string) *netv1alpha1.Ingress {
	class := netapi.GetIngressClass(s.route.Annotations)
	if class == "" {
		class = s.settings.Network.DefaultIngressClass
	}
	p := render.IngressPlan{
		Class: class, Rollout: rollout, Option: httpOption(s),
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

// httpOption is what is to be done with plain HTTP: the Route's own wish, or the cluster's.
func httpOption(s state) netv1alpha1.HTTPOption {
	protocol := netcfg.HTTPProtocol(strings.ToLower(netapi.GetHTTPProtocol(s.route.Annotations)))
	if protocol == "" {
		protocol = s.settings.Network.HTTPProtocol
	}
	switch protocol {
	case netcfg.HTTPEnabled:
		return netv1alpha1.HTTPOptionEnabled
	case netcfg.HTTPRedirected:
		return netv1alpha1.HTTPOptionRedirected
	default:
		return ""
	}
}

func ingressDiffers(have, want *netv1alpha1.Ingress) bool {
	return !equality.Semantic.DeepEqual(have.Spec, want.Spec) ||
		!equality.Semantic.DeepEqual(have.Annotations, want.Annotations) ||
		!equality.Semantic.DeepEqual(have.Labels, want.Labels)
}

// writeIngress makes the Ingress what it is to be; served is what the gateway had against it.
func (r *Reconciler) writeIngress(ctx context.Context, s state, p *plan, served error) error {
	if p.ingress == nil {
		return nil
	}
	now, err := r.putIngress(ctx, s, p.ingress)
	if err != nil || now == nil {
		return err
	}
	after := now.DeepCopy()
	switch {
	case !p.foreign:
		controller.Begin(after)
		r.markIngress(&after.Status, served)
		controller.Finish(after, now)
		if served != nil {
			p.status.PropagateIngressStatus(after.Status)
		}
	case s.ingress != nil && ours(s.ingress):
		after.Status = netv1alpha1.IngressStatus{} // what the gateway said holds no longer
	}
	if equality.Semantic.DeepEqual(now.Status, after.Status) {
		return nil
	}
	if err := r.client.Status().Update(ctx, after); err != nil {
		return fmt.Errorf("updating status of ingress %s/%s: %w", after.Namespace, after.Name, err)
	}
	return nil
}

// putIngress returns the Ingress as it is now; nil when the cache does not know it yet.
func (r *Reconciler) putIngress(ctx context.Context, s state, want *netv1alpha1.Ingress) (*netv1alpha1.Ingress, error) {
	if s.ingress == nil {
		err := r.client.Create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			return nil, nil // its event brings it
		}
		if err != nil {
			r.events.Eventf(s.route, nil, corev1.EventTypeWarning, "CreationFailed", "Create", "Failed to create Ingress: %v", err)
			return nil, fmt.Errorf("creating ingress %s/%s: %w", want.Namespace, want.Name, err)
		}
		r.events.Eventf(s.route, want, corev1.EventTypeNormal, "Created", "Create", "Created Ingress %q", want.Name)
		return want, nil
	}
	if !ingressDiffers(s.ingress, want) {
		return s.ingress, nil
	}
	next := s.ingress.DeepCopy()
	next.Spec, next.Labels, next.Annotations = want.Spec, want.Labels, want.Annotations
	if err := r.client.Update(ctx, next); err != nil {
		return nil, fmt.Errorf("updating ingress %s/%s: %w", want.Namespace, want.Name, err)
	}
	return next, nil
}

func (r *Reconciler) markIngress(status *netv1alpha1.IngressStatus, served error) {
	status.MarkLoadBalancerReady(
		[]netv1alpha1.LoadBalancerIngressStatus{{DomainInternal: r.outside}},
		[]netv1alpha1.LoadBalancerIngressStatus{{DomainInternal: r.gateway}})
	if served == nil {
		status.MarkNetworkConfigured()
		return
	}
	(&netv1alpha1.Ingress{}).GetConditionSet().Manage(status).MarkFalse(
		netv1alpha1.IngressConditionNetworkConfigured, "NotServed", "%s", served)
}

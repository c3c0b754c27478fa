package route

import (
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/traffic/rollout"
	"ebb.dev/ebb/internal/platform/kube/settings"
)

// state is all that a decision about a Route rests on.
type state struct {
	route          *servingv1.Route
	configurations map[string]*servingv1.Configuration // those the traffic names
	revisions      map[string]*servingv1.Revision      // those the traffic names or leads to
	services       map[string]*corev1.Service          // by name: the Route's own, and others in the way
	ingress        *netv1alpha1.Ingress                // nil if there is none
	certificates   []*netv1alpha1.Certificate          // the Route's own, others in the way, wildcards
	settings       *settings.Settings
	now            time.Time
}

// plan is what is to be done.
type plan struct {
	entry          *controller.Entry    // for the table; nil leaves the Route's present one
	foreign        bool                 // another's gateway serves the Route: it leaves the table
	ingress        *netv1alpha1.Ingress // as it is to be; nil leaves it
	due            time.Time            // of the next step of a rollout; zero when none is
	createServices []*corev1.Service
	updateServices []*corev1.Service
	deleteServices []*corev1.Service

	createCertificates, updateCertificates, deleteCertificates []*netv1alpha1.Certificate

	after  *servingv1.Route       // the Route with its new status
	status *servingv1.RouteStatus // within after
}

// decide makes the plan. The status says that the Route is served; act publishes first.
func (n naming) decide(s state, gateway string) plan {
	after := s.route.DeepCopy()
	p := plan{after: after, status: &after.Status}
	controller.Begin(after)
	defer controller.Finish(after, s.route)
	if s.route.Generation != s.route.Status.ObservedGeneration {
		p.status.MarkIngressNotConfigured()
	}
	assigned, bad := resolve(s)
	hosts, err := n.all(s, assigned)
	if err != nil {
		p.fail(err)
		return p
	}
	p.status.URL = hosts[""].url
	if bad != nil {
		bad.mark(p.status)
		return p
	}
	p.status.Traffic = listed(assigned, hosts, rollout.Rollout{})
	p.status.MarkTrafficAssigned()
	p.status.Address = &duckv1.Addressable{URL: &apis.URL{Scheme: "http", Host: hosts[""].local[0]}}
	p.decideTLS(s, hosts)
	if !p.decideServices(s, hosts, gateway) {
		return p
	}
	p.decideIngress(s, assigned, hosts)
	return p
}

// all makes the hosts of every tag; the main one's are made even before traffic is assigned.
func (n naming) all(s state, a assignment) (map[string]host, error) {
	hosts := map[string]host{}
	for _, tag := range append([]string{""}, a.tags()...) {
		h, err := n.hosts(s.route, tag, n.clusterLocal(s, tag))
		if err != nil {
			return nil, err
		}
		n.secure(s, tag, &h)
		hosts[tag] = h
	}
	return hosts, nil
}

func (p *plan) fail(err error) {
	if errors.Is(err, controller.ErrHost) {
		controller.Manage(p.after).MarkFalse(servingv1.RouteConditionAllTrafficAssigned, "ErrorConfig", "%s", err)
		return
	}
	controller.Manage(p.after).MarkUnknown(servingv1.RouteConditionAllTrafficAssigned, "Unknown", "%s", err)
}

// listed is the traffic as the status shows it: while r rolls, with all revisions that have a part
// of what follows the latest.
func listed(a assignment, hosts map[string]host, r rollout.Rollout) []servingv1.TrafficTarget {
	out := make([]servingv1.TrafficTarget, 0, len(a.listed))
	for _, t := range a.listed {
		revisions := []rollout.Revision{{Name: t.revision, Percent: int(t.percent)}}
		if c := r.Of(t.tag, t.configuration); c != nil && truth(t.latest) {
			revisions = c.Revisions
		}
		for _, rev := range revisions {
			percent := int64(rev.Percent)
			tt := servingv1.TrafficTarget{Tag: t.tag, RevisionName: rev.Name, Percent: &percent, LatestRevision: t.latest}
			if t.tag != "" {
				tt.URL = hosts[t.tag].url
			}
			out = append(out, tt)
		}
	}
	return out
}

// decideServices plans one Kubernetes Service a tag; false when a name is another's.
func (p *plan) decideServices(s state, hosts map[string]host, gateway string) bool {
	wanted := map[string]bool{}
	for _, h := range hosts {
		wanted[h.service] = true
		want, have := render.Placeholder(s.route, h.service, gateway), s.services[h.service]
		switch {
		case have == nil:
			p.createServices = append(p.createServices, want)
		case !metav1.IsControlledBy(have, s.route):
			p.status.MarkServiceNotOwned(have.Name)
			return false
		default:
			if changed := changedService(want, have); changed != nil {
				p.updateServices = append(p.updateServices, changed)
			}
		}
	}
	for name, svc := range s.services {
		if !wanted[name] && metav1.IsControlledBy(svc, s.route) {
			p.deleteServices = append(p.deleteServices, svc)
		}
	}
	return true
}

// changedService returns the Service to write, or nil; what users noted on it stays.
func changedService(want, have *corev1.Service) *corev1.Service {
	out := have.DeepCopy()
	out.Labels, out.Annotations = union(have.Labels, want.Labels), union(have.Annotations, want.Annotations)
	out.Spec.Type, out.Spec.ExternalName, out.Spec.Ports = want.Spec.Type, want.Spec.ExternalName, want.Spec.Ports
	if equality.Semantic.DeepEqual(out, have) {
		return nil
	}
	return out
}

func union(have, want map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, want)
	return out
}

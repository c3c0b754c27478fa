package route

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	netapi "knative.dev/networking/pkg/apis/networking"
	apisconfig "knative.dev/serving/pkg/apis/config"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/render"
	"ebb.dev/ebb/internal/domain/traffic"
)

// entryOf makes a Route's rules from its assignment and hosts.
func entryOf(s state, a assignment, hosts map[string]host) controller.Entry {
	e := controller.Entry{Revisions: map[types.NamespacedName]traffic.Settings{}}
	route := types.NamespacedName{Namespace: s.route.Namespace, Name: s.route.Name}
	byTag := map[string][]traffic.Target{}
	for tag, targets := range a.byTag {
		byTag[tag] = shares(route.Namespace, targets)
		for _, t := range targets {
			rev := s.revisions[t.revision]
			e.Revisions[types.NamespacedName{Namespace: route.Namespace, Name: rev.Name}] = settingsOf(rev, s.settings.Features)
		}
	}
	header := byTag
	if s.settings.Features.TagHeaderBasedRouting != apisconfig.Enabled {
		header = nil
	}
	for _, tag := range a.tags() {
		rule := traffic.Rule{Route: route, Tag: tag, Targets: byTag[tag]}
		if tag == "" {
			rule.TagHeader = header
		}
		e.Rules = append(e.Rules, expand(rule, hosts[tag])...)
	}
	return e
}

// shares lists the targets that get requests.
func shares(namespace string, targets []target) []traffic.Target {
	out := make([]traffic.Target, 0, len(targets))
	for _, t := range targets {
		if t.percent > 0 {
			out = append(out, traffic.Target{
				Revision: types.NamespacedName{Namespace: namespace, Name: t.revision},
				Percent:  int(t.percent),
				Tag:      t.tag,
			})
		}
	}
	return out
}

// expand copies a rule to each of its hosts.
func expand(rule traffic.Rule, h host) []traffic.Rule {
	out := make([]traffic.Rule, 0, len(h.public)+len(h.local))
	for i, name := range h.public {
		rule.Host, rule.ClusterLocal, rule.Redirect = name, false, h.redirect
		if rule.Secret = (types.NamespacedName{}); i == 0 {
			rule.Secret = h.outside.secret()
		}
		out = append(out, rule)
	}
	for _, name := range h.local {
		rule.Host, rule.ClusterLocal, rule.Redirect, rule.Secret = name, true, false, h.inside.secret()
		out = append(out, rule)
	}
	return out
}

// settingsOf is what the gateway must know of a Revision.
func settingsOf(rev *servingv1.Revision, features *apisconfig.Features) traffic.Settings {
	return traffic.Settings{
		ContainerConcurrency: int(rev.Spec.GetContainerConcurrency()),
		Timeout:              seconds(rev.Spec.TimeoutSeconds),
		ResponseStartTimeout: seconds(rev.Spec.ResponseStartTimeoutSeconds),
		IdleTimeout:          seconds(rev.Spec.IdleTimeoutSeconds),
		H2C:                  rev.GetProtocol() == netapi.ProtocolH2C,
		DetectH2C:            render.DetectsHTTP2(rev, features),
		Port:                 uint16(render.Port(rev)),
		Labels: traffic.Labels{
			Service:       rev.Labels[serving.ServiceLabelKey],
			Configuration: rev.Labels[serving.ConfigurationLabelKey],
		},
	}
}

func seconds(n *int64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Second
}

// restored makes a Route's entry from the traffic its status shows: what was in force before this
// process started, should a target be missing now.
func restored(s state) assignment {
	a := assignment{byTag: map[string][]target{}}
	for i := range s.route.Status.Traffic {
		tt := &s.route.Status.Traffic[i]
		if s.revisions[tt.RevisionName] == nil {
			continue
		}
		t := target{revision: tt.RevisionName, tag: tt.Tag, latest: tt.LatestRevision}
		if tt.Percent != nil {
			t.percent = *tt.Percent
		}
		a.add(t)
	}
	for tag, targets := range a.byTag {
		a.byTag[tag] = consolidate(targets)
	}
	return a
}

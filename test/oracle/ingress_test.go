package oracle

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netapi "knative.dev/networking/pkg/apis/networking"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	netcfg "knative.dev/networking/pkg/config"
	apisconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/reconciler/route/config"
	"knative.dev/serving/pkg/reconciler/route/resources"
	"knative.dev/serving/pkg/reconciler/route/traffic"

	"ebb.dev/ebb/internal/domain/render"
)

// TestIngressesAreUpstreams compares the Ingress of one Route, with a tag and a rollout under way,
// with the one upstream makes.
func TestIngressesAreUpstreams(t *testing.T) {
	const class = "some.class"
	for name, tagHeader := range map[string]apisconfig.Flag{"tags by host": apisconfig.Disabled, "tags by header too": apisconfig.Enabled} {
		t.Run(name, func(t *testing.T) {
			network, err := netcfg.NewConfigFromMap(map[string]string{"ingress-class": class})
			if err != nil {
				t.Fatal(err)
			}
			ctx := config.ToContext(t.Context(), &config.Config{
				Domain:   &config.Domain{Domains: map[string]config.DomainConfig{"example.com": {}}},
				Network:  network,
				Features: &apisconfig.Features{TagHeaderBasedRouting: tagHeader},
			})
			route := &servingv1.Route{ObjectMeta: metav1.ObjectMeta{
				Name: "hello", Namespace: "shop", UID: "u", Labels: map[string]string{"team": "green"},
				Annotations: map[string]string{
					"example.com/note": "kept", corev1.LastAppliedConfigAnnotation: "{}",
					netapi.IngressClassAnnotationAltKey: class, netapi.CertificateClassAnnotationAltKey: "c",
				},
			}}
			target := func(revision, tag string, percent int64, latest bool, protocol netapi.ProtocolType) traffic.RevisionTarget {
				return traffic.RevisionTarget{Protocol: protocol, TrafficTarget: servingv1.TrafficTarget{
					Tag: tag, RevisionName: revision, ConfigurationName: "hello", Percent: &percent, LatestRevision: &latest,
				}}
			}
			h2c, h1 := netapi.ProtocolH2C, netapi.ProtocolHTTP1
			tc := &traffic.Config{
				Targets: map[string]traffic.RevisionTargets{
					"":       {target("hello-2", "", 80, true, h1), target("hello-0", "", 20, false, h2c), target("hello-9", "", 0, false, h1)},
					"now":    {target("hello-2", "now", 100, true, h1)},
					"before": {target("hello-0", "before", 100, false, h2c)},
				},
				Visibility: map[string]netv1alpha1.IngressVisibility{"before": netv1alpha1.IngressVisibilityClusterLocal},
			}
			rolling := &traffic.Rollout{Configurations: []*traffic.ConfigurationRollout{{
				ConfigurationName: "hello", Percent: 80,
				Revisions: []traffic.RevisionRollout{{RevisionName: "hello-1", Percent: 79}, {RevisionName: "hello-2", Percent: 1}},
			}}}
			want, err := resources.MakeIngressWithRollout(ctx, route, tc, rolling, nil, class)
			if err != nil {
				t.Fatal(err)
			}
			host := func(tag, label string, public bool, backends ...render.Backend) render.Host {
				short := label + ".shop"
				h := render.Host{Tag: tag, Local: []string{short + ".svc.cluster.local", short + ".svc", short}, Backends: backends}
				if public {
					h.Public = []string{short + ".example.com"}
				}
				return h
			}
			got := render.Ingress(route, render.IngressPlan{
				Class: class, Rollout: written(t, rolling), Option: netv1alpha1.HTTPOptionEnabled, TagHeader: tagHeader == apisconfig.Enabled,
				Hosts: []render.Host{
					host("", "hello", true, render.Backend{Revision: "hello-1", Percent: 79}, render.Backend{Revision: "hello-2", Percent: 1}, render.Backend{Revision: "hello-0", Percent: 20, H2C: true}),
					host("before", "before-hello", false, render.Backend{Revision: "hello-0", Percent: 100, H2C: true}),
					host("now", "now-hello", true, render.Backend{Revision: "hello-2", Percent: 100}),
				},
			})
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("ingress (-upstream +ebb):\n%s", diff)
			}
		})
	}
}

package controller_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/controller"
	"ebb.dev/ebb/internal/domain/traffic"
)

func seconds(n int) *metav1.Duration {
	return &metav1.Duration{Duration: time.Duration(n) * time.Second}
}

func TestInterceptedSettings(t *testing.T) {
	own, side := traffic.PseudoRevision(name("cart")), traffic.PseudoFallback(name("cart"))
	plain := traffic.Service{Name: name("web"), Port: 80}
	with := func(change func(*traffic.Service)) *traffic.Service {
		s := plain
		change(&s)
		return &s
	}
	const usual = 300 * time.Second
	fallback := &httpv1beta1.ColdStartSpec{Fallback: &httpv1beta1.ColdStartFallback{Service: &httpv1beta1.ServiceRef{Name: "side", PortName: "http"}}}
	for what, tt := range map[string]struct {
		spec httpv1beta1.InterceptorRouteSpec
		want map[types.NamespacedName]traffic.Settings
	}{
		"nothing said": {httpv1beta1.InterceptorRouteSpec{}, map[types.NamespacedName]traffic.Settings{
			own: {ResponseStartTimeout: usual, Service: &plain},
		}},
		"times": {
			httpv1beta1.InterceptorRouteSpec{Timeouts: httpv1beta1.InterceptorRouteTimeouts{Readiness: seconds(1), Request: seconds(2), ResponseHeader: seconds(3)}},
			map[types.NamespacedName]traffic.Settings{own: {ResponseStartTimeout: 3 * time.Second, Service: with(func(s *traffic.Service) {
				s.ReadyTimeout, s.Deadline = time.Second, 2*time.Second
			})}},
		},
		"times without end": {
			httpv1beta1.InterceptorRouteSpec{Timeouts: httpv1beta1.InterceptorRouteTimeouts{Readiness: seconds(0), Request: seconds(0), ResponseHeader: seconds(0)}},
			map[types.NamespacedName]traffic.Settings{own: {Service: &plain}},
		},
		"another Service that stands in after half a minute": {
			httpv1beta1.InterceptorRouteSpec{ColdStart: fallback, Timeouts: httpv1beta1.InterceptorRouteTimeouts{Readiness: seconds(0), Request: seconds(60)}},
			map[types.NamespacedName]traffic.Settings{
				own: {ResponseStartTimeout: usual, Service: with(func(s *traffic.Service) {
					s.ReadyTimeout, s.Deadline, s.Fallback = 30*time.Second, time.Minute, side
				})},
				side: {ResponseStartTimeout: usual, Service: &traffic.Service{Name: name("side"), PortName: "http", Deadline: time.Minute}},
			},
		},
		"metrics": {
			httpv1beta1.InterceptorRouteSpec{ScalingMetric: httpv1beta1.ScalingMetricSpec{
				Concurrency: &httpv1beta1.ConcurrencyTargetSpec{TargetValue: 4},
				RequestRate: &httpv1beta1.RequestRateTargetSpec{TargetValue: 5, Window: *seconds(60), Granularity: *seconds(1)},
			}},
			map[types.NamespacedName]traffic.Settings{own: {ResponseStartTimeout: usual, Service: with(func(s *traffic.Service) {
				s.Concurrency, s.Rate = 4, &traffic.Rate{Target: 5, Window: time.Minute, Granularity: time.Second}
			})}},
		},
		"a response for the time without": {
			httpv1beta1.InterceptorRouteSpec{ColdStart: &httpv1beta1.ColdStartSpec{Placeholder: &httpv1beta1.ColdStartPlaceholder{
				Response: &httpv1beta1.StaticResponse{Body: new("soon"), Headers: map[string]string{"A": "b"}},
			}}},
			map[types.NamespacedName]traffic.Settings{own: {ResponseStartTimeout: usual, Service: with(func(s *traffic.Service) {
				s.Placeholder = &traffic.Placeholder{Status: 503, Body: "soon", Header: map[string]string{"A": "b"}}
			})}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			tt.spec.Target = httpv1beta1.TargetRef{Service: "web", Port: 80}
			e := controller.Intercepted(&httpv1beta1.InterceptorRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Spec: tt.spec}, nil)
			if diff := cmp.Diff(tt.want, e.Revisions); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInterceptedRules(t *testing.T) {
	route := &httpv1beta1.InterceptorRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}}
	route.Spec.Rules = []httpv1beta1.RoutingRule{
		{},
		{
			Hosts: []string{"a.example", "*.b.example"}, Paths: []httpv1beta1.PathMatch{{Value: "/x"}, {Value: "/y"}},
			Headers: []httpv1beta1.HeaderMatch{{Name: "One"}, {Name: "Two", Value: new("")}},
		},
	}
	type rule struct{ Host, Path string }
	var got []rule
	for _, r := range controller.Intercepted(route, nil).Rules {
		got = append(got, rule{r.Host, r.Way.Path})
		if r.Route != name("cart") || r.Pick(0).Revision != traffic.PseudoRevision(name("cart")) {
			t.Errorf("a rule of another: %+v", r)
		}
		if r.Host != "*" {
			want := []traffic.Header{{Name: "One", Any: true}, {Name: "Two"}}
			if diff := cmp.Diff(want, r.Way.Headers); diff != "" {
				t.Error(diff)
			}
		}
	}
	want := []rule{{"*", ""}, {"a.example", "/x"}, {"a.example", "/y"}, {"*.b.example", "/x"}, {"*.b.example", "/y"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

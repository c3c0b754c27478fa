package admission

import (
	"strings"
	"testing"
	"time"

	httpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestInterceptorRoutes(t *testing.T) {
	before := metav1.Duration{Duration: -time.Second}
	for name, tt := range map[string]struct {
		change  func(*httpv1beta1.InterceptorRouteSpec)
		refused string
		warned  bool
	}{
		"as it should be":  {func(*httpv1beta1.InterceptorRouteSpec) {}, "", false},
		"without rules":    {func(s *httpv1beta1.InterceptorRouteSpec) { s.Rules = nil }, "", true},
		"a host of no use": {func(s *httpv1beta1.InterceptorRouteSpec) { s.Rules[0].Hosts = []string{"*", "a.*"} }, "spec.rules[0].hosts[1]", false},
		"a field's name": {func(s *httpv1beta1.InterceptorRouteSpec) {
			s.Rules[0].Headers = []httpv1beta1.HeaderMatch{{Name: "a b"}}
		}, "spec.rules[0].headers[0].name", false},
		"a wait before now":     {func(s *httpv1beta1.InterceptorRouteSpec) { s.Timeouts.Readiness = &before }, "spec.timeouts.readiness", false},
		"a request before now":  {func(s *httpv1beta1.InterceptorRouteSpec) { s.Timeouts.Request = &before }, "spec.timeouts.request", false},
		"a response before now": {func(s *httpv1beta1.InterceptorRouteSpec) { s.Timeouts.ResponseHeader = &before }, "spec.timeouts.responseHeader", false},
		"a window before now": {func(s *httpv1beta1.InterceptorRouteSpec) {
			s.ScalingMetric.RequestRate = &httpv1beta1.RequestRateTargetSpec{Window: before, Granularity: before}
		}, "spec.scalingMetric.requestRate.granularity", false},
	} {
		t.Run(name, func(t *testing.T) {
			spec := httpv1beta1.InterceptorRouteSpec{Rules: []httpv1beta1.RoutingRule{{Hosts: []string{"*.example.com"}, Headers: []httpv1beta1.HeaderMatch{{Name: "X-A"}}}}}
			tt.change(&spec)
			warnings, err := checkInterceptorRoute(&spec)
			if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) || (len(warnings) > 0) != tt.warned {
				t.Errorf("%v, warnings %q", err, warnings)
			}
		})
	}
}

func TestHTTPScaledObjects(t *testing.T) {
	before := metav1.Duration{Duration: -time.Second}
	for name, tt := range map[string]struct {
		spec    httpv1alpha1.HTTPScaledObjectSpec
		refused string
	}{
		"as it should be": {httpv1alpha1.HTTPScaledObjectSpec{
			Hosts: []string{"a.example"}, Replicas: &httpv1alpha1.ReplicaStruct{Min: new(int32(0)), Max: new(int32(1))}, CooldownPeriod: new(int32(0)),
			ScalingMetric: &httpv1alpha1.ScalingMetricSpec{Concurrency: &httpv1alpha1.ConcurrencyMetricSpec{TargetValue: 1}},
		}, ""},
		"a host of no use":       {httpv1alpha1.HTTPScaledObjectSpec{Hosts: []string{"a b"}}, "spec.hosts[0]"},
		"a field's name":         {httpv1alpha1.HTTPScaledObjectSpec{Headers: []httpv1alpha1.Header{{Name: ":"}}}, "spec.headers[0].name"},
		"replicas below zero":    {httpv1alpha1.HTTPScaledObjectSpec{Replicas: &httpv1alpha1.ReplicaStruct{Min: new(int32(-1))}}, "spec.replicas.min"},
		"no replicas":            {httpv1alpha1.HTTPScaledObjectSpec{Replicas: &httpv1alpha1.ReplicaStruct{Max: new(int32(0))}}, "spec.replicas.max"},
		"replicas upside down":   {httpv1alpha1.HTTPScaledObjectSpec{Replicas: &httpv1alpha1.ReplicaStruct{Min: new(int32(3)), Max: new(int32(2))}}, "must not be more than max"},
		"a period below zero":    {httpv1alpha1.HTTPScaledObjectSpec{CooldownPeriod: new(int32(-1))}, "spec.scaledownPeriod"},
		"a first below zero":     {httpv1alpha1.HTTPScaledObjectSpec{InitialCooldownPeriod: new(int32(-1))}, "spec.initialCooldownPeriod"},
		"a target of nothing":    {httpv1alpha1.HTTPScaledObjectSpec{TargetPendingRequests: new(int32(0))}, "spec.targetPendingRequests"},
		"a wait before now":      {httpv1alpha1.HTTPScaledObjectSpec{Timeouts: &httpv1alpha1.HTTPScaledObjectTimeoutsSpec{ConditionWait: before}}, "spec.timeouts.conditionWait"},
		"a failover before now":  {httpv1alpha1.HTTPScaledObjectSpec{ColdStartTimeoutFailoverRef: &httpv1alpha1.ColdStartTimeoutFailoverRef{TimeoutSeconds: -1}}, "spec.coldStartTimeoutFailoverRef.timeoutSeconds"},
		"two metrics":            {httpv1alpha1.HTTPScaledObjectSpec{ScalingMetric: &httpv1alpha1.ScalingMetricSpec{Concurrency: &httpv1alpha1.ConcurrencyMetricSpec{TargetValue: 1}, Rate: &httpv1alpha1.RateMetricSpec{TargetValue: 1}}}, "mutually exclusive"},
		"a rate without a value": {httpv1alpha1.HTTPScaledObjectSpec{ScalingMetric: &httpv1alpha1.ScalingMetricSpec{Rate: &httpv1alpha1.RateMetricSpec{Window: before}}}, "spec.scalingMetric.requestRate.targetValue"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkHTTPScaledObject(&tt.spec).ToAggregate()
			if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%v", err)
			}
		})
	}
}

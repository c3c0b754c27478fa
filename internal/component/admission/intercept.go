package admission

import (
	"time"

	httpv1alpha1 "github.com/kedacore/http-add-on/operator/apis/http/v1alpha1"
	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	"golang.org/x/net/http/httpguts"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"ebb.dev/ebb/internal/domain/traffic"
)

// noRules warns of a route that nothing leads to.
const noRules = "spec.rules: without rules no request is for this route; `rules: [{}]` has it get those of all hosts and paths that no other route has"

// checkInterceptorRoute finds what the definition's schema lets pass and could not work.
func checkInterceptorRoute(spec *httpv1beta1.InterceptorRouteSpec) (warnings []string, err error) {
	at := field.NewPath("spec")
	var errs field.ErrorList
	for i := range spec.Rules {
		rule := at.Child("rules").Index(i)
		errs = append(errs, checkHosts(rule.Child("hosts"), spec.Rules[i].Hosts)...)
		for j := range spec.Rules[i].Headers {
			errs = append(errs, checkField(rule.Child("headers").Index(j).Child("name"), spec.Rules[i].Headers[j].Name)...)
		}
	}
	times := at.Child("timeouts")
	if t := spec.Timeouts.Readiness; t != nil {
		errs = append(errs, checkTime(times.Child("readiness"), t.Duration)...)
	}
	if t := spec.Timeouts.Request; t != nil {
		errs = append(errs, checkTime(times.Child("request"), t.Duration)...)
	}
	if t := spec.Timeouts.ResponseHeader; t != nil {
		errs = append(errs, checkTime(times.Child("responseHeader"), t.Duration)...)
	}
	if r := spec.ScalingMetric.RequestRate; r != nil {
		rate := at.Child("scalingMetric", "requestRate")
		errs = append(errs, checkTime(rate.Child("window"), r.Window.Duration)...)
		errs = append(errs, checkTime(rate.Child("granularity"), r.Granularity.Duration)...)
	}
	if len(spec.Rules) == 0 {
		warnings = append(warnings, noRules)
	}
	return warnings, errs.ToAggregate()
}

// checkHTTPScaledObject finds what the definition's schema lets pass and could not work.
func checkHTTPScaledObject(spec *httpv1alpha1.HTTPScaledObjectSpec) field.ErrorList {
	at := field.NewPath("spec")
	errs := checkHosts(at.Child("hosts"), spec.Hosts)
	for i := range spec.Headers {
		errs = append(errs, checkField(at.Child("headers").Index(i).Child("name"), spec.Headers[i].Name)...)
	}
	errs = append(errs, atLeast(at.Child("scaledownPeriod"), spec.CooldownPeriod, 0)...)
	errs = append(errs, atLeast(at.Child("initialCooldownPeriod"), spec.InitialCooldownPeriod, 0)...)
	errs = append(errs, atLeast(at.Child("targetPendingRequests"), spec.TargetPendingRequests, 1)...)
	if r := spec.Replicas; r != nil {
		errs = append(errs, atLeast(at.Child("replicas", "min"), r.Min, 0)...)
		errs = append(errs, atLeast(at.Child("replicas", "max"), r.Max, 1)...)
		if r.Min != nil && r.Max != nil && *r.Min > *r.Max {
			errs = append(errs, field.Invalid(at.Child("replicas", "min"), *r.Min, "must not be more than max"))
		}
	}
	if t := spec.Timeouts; t != nil {
		errs = append(errs, checkTime(at.Child("timeouts", "conditionWait"), t.ConditionWait.Duration)...)
		errs = append(errs, checkTime(at.Child("timeouts", "responseHeader"), t.ResponseHeader.Duration)...)
	}
	if side := spec.ColdStartTimeoutFailoverRef; side != nil {
		errs = append(errs, atLeast(at.Child("coldStartTimeoutFailoverRef", "timeoutSeconds"), &side.TimeoutSeconds, 0)...)
	}
	return append(errs, checkMetric(at.Child("scalingMetric"), spec.ScalingMetric)...)
}

func checkMetric(at *field.Path, m *httpv1alpha1.ScalingMetricSpec) (errs field.ErrorList) {
	if m == nil {
		return nil
	}
	if m.Concurrency != nil && m.Rate != nil {
		errs = append(errs, field.Forbidden(at, ".spec.scalingMetric.concurrency and .spec.scalingMetric.rate are mutually exclusive"))
	}
	if c := m.Concurrency; c != nil {
		errs = append(errs, atLeast(at.Child("concurrency", "targetValue"), &c.TargetValue, 1)...)
	}
	if r := m.Rate; r != nil {
		rate := at.Child("requestRate")
		errs = append(errs, atLeast(rate.Child("targetValue"), &r.TargetValue, 1)...)
		errs = append(errs, checkTime(rate.Child("window"), r.Window.Duration)...)
		errs = append(errs, checkTime(rate.Child("granularity"), r.Granularity.Duration)...)
	}
	return errs
}

func checkHosts(at *field.Path, hosts []string) (errs field.ErrorList) {
	for i, host := range hosts {
		if !traffic.Sharable(host) {
			errs = append(errs, field.Invalid(at.Index(i), host, `must be a host's name, "*." before one, or "*"`))
		}
	}
	return errs
}

func checkField(at *field.Path, name string) field.ErrorList {
	if httpguts.ValidHeaderFieldName(name) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, name, "must be the name of a header field")}
}

func checkTime(at *field.Path, d time.Duration) field.ErrorList {
	if d >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(at, d.String(), "must not be negative")}
}

func atLeast[T int | int32](at *field.Path, n *T, least T) field.ErrorList {
	switch {
	case n == nil || *n >= least:
		return nil
	case least == 0:
		return field.ErrorList{field.Invalid(at, *n, "must not be negative")}
	}
	return field.ErrorList{field.Invalid(at, *n, "must be 1 at least")}
}

package controller

import (
	"net/http"
	"time"

	httpv1beta1 "github.com/kedacore/http-add-on/operator/apis/http/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ebb.dev/ebb/internal/domain/traffic"
)

// How long routes to Services wait that do not say so, as KEDA's interceptor does.
const (
	responsePatience = 300 * time.Second // for a response
	fallbackPatience = 30 * time.Second  // for an instance, where another Service stands in
)

// Intercepted is what an InterceptorRoute contributes to the route table. Files are the data of the
// ConfigMap its placeholder is in; nil if there is none.
func Intercepted(route *httpv1beta1.InterceptorRoute, files map[string]string) Entry {
	name := client.ObjectKeyFromObject(route)
	spec := &route.Spec
	own := traffic.Settings{ResponseStartTimeout: responsePatience, Service: &traffic.Service{
		Name: types.NamespacedName{Namespace: name.Namespace, Name: spec.Target.Service},
		Port: spec.Target.Port, PortName: spec.Target.PortName,
	}}
	if t := spec.Timeouts.ResponseHeader; t != nil {
		own.ResponseStartTimeout = max(0, t.Duration)
	}
	s := own.Service
	if t := spec.Timeouts.Request; t != nil {
		s.Deadline = max(0, t.Duration)
	}
	if t := spec.Timeouts.Readiness; t != nil {
		s.ReadyTimeout = max(0, t.Duration)
	}
	if m := spec.ScalingMetric.Concurrency; m != nil {
		s.Concurrency = m.TargetValue
	}
	if m := spec.ScalingMetric.RequestRate; m != nil {
		s.Rate = &traffic.Rate{Target: m.TargetValue, Window: m.Window.Duration, Granularity: m.Granularity.Duration}
	}
	e := Entry{Born: route.CreationTimestamp.Time, Rules: ways(name, spec.Rules), Revisions: map[types.NamespacedName]traffic.Settings{}}
	if cold := spec.ColdStart; cold != nil {
		if cold.Placeholder != nil && cold.Placeholder.Response != nil {
			s.Placeholder = placeholder(cold.Placeholder.Response, files)
		}
		if cold.Fallback != nil && cold.Fallback.Service != nil {
			side := cold.Fallback.Service
			s.Fallback = traffic.PseudoFallback(name)
			if s.ReadyTimeout == 0 {
				s.ReadyTimeout = fallbackPatience
			}
			e.Revisions[s.Fallback] = traffic.Settings{ResponseStartTimeout: own.ResponseStartTimeout, Service: &traffic.Service{
				Name: types.NamespacedName{Namespace: name.Namespace, Name: side.Name}, Port: side.Port, PortName: side.PortName, Deadline: s.Deadline,
			}}
		}
	}
	e.Revisions[traffic.PseudoRevision(name)] = own
	return e
}

// ways are a route's rules: one for each host and path. No hosts are all hosts, no paths all paths.
func ways(route types.NamespacedName, rules []httpv1beta1.RoutingRule) []traffic.Rule {
	var out []traffic.Rule
	to := []traffic.Target{{Revision: traffic.PseudoRevision(route), Percent: 100}}
	for i := range rules {
		hosts, paths := rules[i].Hosts, rules[i].Paths
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		if len(paths) == 0 {
			paths = []httpv1beta1.PathMatch{{}}
		}
		var headers []traffic.Header
		for _, h := range rules[i].Headers {
			if h.Value == nil {
				headers = append(headers, traffic.Header{Name: h.Name, Any: true})
			} else {
				headers = append(headers, traffic.Header{Name: h.Name, Value: *h.Value})
			}
		}
		for _, host := range hosts {
			for _, path := range paths {
				out = append(out, traffic.Rule{Host: host, Route: route, Targets: to, Way: &traffic.Way{Path: path.Value, Headers: headers}})
			}
		}
	}
	return out
}

func placeholder(r *httpv1beta1.StaticResponse, files map[string]string) *traffic.Placeholder {
	p := &traffic.Placeholder{Status: int(r.StatusCode), Header: r.Headers}
	if p.Status == 0 {
		p.Status = http.StatusServiceUnavailable
	}
	switch {
	case r.Body != nil:
		p.Body = *r.Body
	case r.BodyFromConfigMap != nil:
		p.Files, p.File, p.Broken = files, r.BodyFromConfigMap.Key, files == nil
	}
	return p
}

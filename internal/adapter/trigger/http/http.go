// Package http scales by the requests of a route to a Service, as the external scaler of KEDA's HTTP
// add-on does. There is no scaler to call: the gateway counts in this process.
//
// Triggers are those the add-on asks for: of type external-push, with the name of an InterceptorRoute
// or HTTPScaledObject among their metadata. All else such a trigger says is for the add-on's scaler.
package http

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/domain/traffic"
)

// Parameters that name a route.
const (
	interceptorRoute = "interceptorRoute"
	httpScaledObject = "httpScaledObject"
)

// patience bounds the wait for a route that is not there yet: manifests have it in the same breath as
// the object with the trigger, in any order.
const patience = 2 * time.Second

type source struct {
	name   types.NamespacedName
	old    bool // an HTTPScaledObject, which has one metric of its own name
	index  int
	kind   autoscalingv2.MetricTargetType
	routes trigger.Routes
	gauge  *gauge
	close  func()
}

// Names tells whether a trigger's metadata name a route, so that it is New's.
func Names(metadata map[string]string) bool {
	_, route := metadata[interceptorRoute]
	_, object := metadata[httpScaledObject]
	return route || object
}

// Or returns a Build that has New make triggers whose metadata name a route, and next all others.
func Or(next trigger.Build) trigger.Build {
	return func(c trigger.Config) (trigger.Source, error) {
		if Names(c.TriggerMetadata) {
			return New(c)
		}
		return next(c)
	}
}

// New makes a Source of the requests of a route.
func New(c trigger.Config) (trigger.Source, error) {
	kind, err := c.External()
	if err != nil {
		return nil, err
	}
	s := &source{index: c.TriggerIndex, kind: kind, routes: c.Routes, name: types.NamespacedName{Namespace: c.ScalableObjectNamespace}}
	name, isRoute := c.TriggerMetadata[interceptorRoute]
	if !isRoute {
		name, s.old = c.TriggerMetadata[httpScaledObject]
	}
	switch s.name.Name = name; {
	case name == "":
		return nil, fmt.Errorf("reading parameters of %s: neither %s nor %s names a route", c.TriggerType, interceptorRoute, httpScaledObject)
	case c.Routes == nil:
		return nil, errors.New("counting requests: there is no gateway to count them")
	}
	s.gauge, s.close, err = endpoint.Acquire(c.Shared, "requests of "+s.name.String(), func() (*gauge, func(), error) {
		g := newGauge(c.Routes, s.name)
		return g, g.close, nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// metrics lists what of a route is counted: by name, and with which target.
func (s *source) metrics(to *traffic.Service) (concurrency, rate string) {
	if s.old {
		name := fmt.Sprintf("s%d-%s", s.index, escape("http-"+s.name.String()))
		if to.Rate != nil {
			return "", name
		}
		return name, ""
	}
	if to.Concurrency > 0 {
		concurrency = fmt.Sprintf("s%d-http_%s_concurrency", s.index, s.name.Name)
	}
	if to.Rate != nil {
		rate = fmt.Sprintf("s%d-http_%s_rate", s.index, s.name.Name)
	}
	return concurrency, rate
}

// Specs implements trigger.Source. It waits a moment for a route that is not there yet.
func (s *source) Specs(ctx context.Context) ([]autoscalingv2.MetricSpec, error) {
	to, err := s.await(ctx)
	if err != nil {
		return nil, err
	}
	var out []autoscalingv2.MetricSpec
	concurrency, rate := s.metrics(&to)
	if concurrency != "" {
		out = append(out, trigger.SpecMilli(concurrency, s.kind, float64(to.Concurrency)))
	}
	if rate != "" {
		out = append(out, trigger.SpecMilli(rate, s.kind, float64(to.Rate.Target)))
	}
	return out, nil
}

func (s *source) await(ctx context.Context) (traffic.Service, error) {
	if to, ok := s.routes.Route(s.name); ok {
		return to, nil
	}
	came := make(chan struct{}, 1)
	defer s.routes.WatchRoute(s.name, func() {
		select {
		case came <- struct{}{}:
		default:
		}
	})()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		if to, ok := s.routes.Route(s.name); ok {
			return to, nil
		}
		select {
		case <-came:
		case <-late.C:
			return traffic.Service{}, s.missing()
		case <-ctx.Done():
			return traffic.Service{}, s.missing()
		}
	}
}

func (s *source) missing() error {
	kind := "InterceptorRoute"
	if s.old {
		kind = "HTTPScaledObject"
	}
	return fmt.Errorf("counting requests: there is no %s %s", kind, s.name)
}

// Read implements trigger.Source.
func (s *source) Read(context.Context) ([]trigger.Reading, error) {
	to, ok := s.routes.Route(s.name)
	if !ok {
		return nil, s.missing()
	}
	seen := s.gauge.read(to.Rate)
	var out []trigger.Reading
	concurrency, rate := s.metrics(&to)
	if concurrency != "" {
		out = append(out, trigger.Reading{
			Metric: concurrency, Value: trigger.Quantity(float64(seen.inFlight)), Active: seen.inFlight > 0 || seen.fresh,
		})
	}
	if rate != "" {
		value := seen.rate
		if s.old {
			value = math.Ceil(value)
		}
		out = append(out, trigger.Reading{Metric: rate, Value: trigger.Quantity(value), Active: value > 0})
	}
	return out, nil
}

// Watch implements trigger.Pusher.
func (s *source) Watch(mode trigger.Mode, wake func()) (stop func()) {
	return s.gauge.watch(mode, wake)
}

// WatchSpecs implements trigger.Respecifier.
func (s *source) WatchSpecs(changed func()) (stop func()) {
	return s.routes.WatchRoute(s.name, changed)
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.close()
	return nil
}

// escape replaces what the add-on does not let stand in a metric's name.
func escape(name string) string {
	var b strings.Builder
	for _, r := range name {
		switch {
		case r == '-', r == '.', r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "_%04X", string(r))
		}
	}
	return b.String()
}

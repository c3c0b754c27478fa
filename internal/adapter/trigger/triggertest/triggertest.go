// Package triggertest is the suite every trigger passes, against the server it is made for or the
// nearest thing to it.
package triggertest

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// Index is the position of the tested trigger in its object: metric names begin with s3-.
const Index = 3

// A Subject is a trigger and the server it looks at.
type Subject struct {
	// Type is the trigger's, as users write it.
	Type string
	// Build is the trigger's constructor.
	Build trigger.Build
	// Metadata, Auth and Env are parameters that work, with an activation threshold of 2 where the
	// trigger has one, and a target of 5.
	Metadata, Auth, Env map[string]string
	// Objects are the cluster's, for triggers that need them.
	Objects trigger.Objects
	// Metric is the name the metric must have, without its index.
	Metric string
	// Target is what the HPA's target must be, as a quantity: "5".
	Target string
	// Required are parameters without which it must not be made, each alone.
	Required []string
	// Wrong are parameters, each of them wrong on its own, that must be refused.
	Wrong map[string]string
	// Set has that much work wait: a value of n.
	Set func(t *testing.T, n int)
	// NoActivation says that the trigger is active by other rules than its value.
	NoActivation bool
	// Values are what Set can have wait, in the order they are tried; 0, 2, 3, 11 and 0 when nil. The
	// first and the last are 0, and 7 is one of them.
	Values []int
	// Resource says that the HorizontalPodAutoscaler reads it by itself: the metric is a resource
	// named Metric, nothing is read, and only parameters and Specs are checked.
	Resource bool
	// Bubble says that time is a fake one in each test (testing/synctest), so that Set may pass hours.
	Bubble bool
	// Down are parameters that lead to where nobody answers.
	Down map[string]string
	// Break and Repair stop and restart the server, or cut the way to it. Optional.
	Break, Repair func(t *testing.T)
	// Keeps says that what Set put there survives Break.
	Keeps bool
	// Variant says that another subject asks the same server in the same ways, which need not break
	// twice.
	Variant bool
	// Denied are parameters with which the server lets nobody in. Optional.
	Denied map[string]string
	// Within is how soon a Pusher must tell; a second when zero.
	Within time.Duration
	// Untouched checks that all that Set put there is still there after it was watched. Optional.
	Untouched func(t *testing.T, n int)
}

// Environment returns one for tests; what a test shares it shares with itself only.
func Environment(t *testing.T) trigger.Environment {
	t.Helper()
	pool := endpoint.NewPool(t.Context())
	t.Cleanup(func() {
		if n := pool.Len(); n > 0 {
			t.Errorf("%d shared things were not let go of", n)
		}
	})
	return trigger.Environment{
		Dial:   (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		Shared: pool,
		Log:    slog.New(slog.DiscardHandler),
	}
}

// Config returns the subject's with parameters put over it; an empty value takes one away.
func (s Subject) Config(t *testing.T, over map[string]string) trigger.Config {
	t.Helper()
	c := trigger.Config{Environment: Environment(t)}
	c.Objects = s.Objects
	c.TriggerType, c.TriggerIndex = s.Type, Index
	c.ScalableObjectName, c.ScalableObjectNamespace, c.ScalableObjectType = "subject", "default", "ScaledObject"
	c.GlobalHTTPTimeout = 3 * time.Second
	c.TriggerMetadata, c.AuthParams, c.ResolvedEnv = clone(s.Metadata), clone(s.Auth), clone(s.Env)
	for name, value := range over {
		to := c.TriggerMetadata
		if _, isAuth := s.Auth[name]; isAuth {
			to = c.AuthParams
		}
		if value == "" {
			delete(to, name)
		} else {
			to[name] = value
		}
	}
	return c
}

func clone(in map[string]string) map[string]string {
	if in == nil {
		return map[string]string{}
	}
	return maps.Clone(in)
}

// open makes a Source that the test closes.
func (s Subject) open(t *testing.T, over map[string]string) trigger.Source {
	t.Helper()
	source, err := s.Build(s.Config(t, over))
	if err != nil {
		t.Fatalf("making it: %v", err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Errorf("closing it: %v", err)
		}
	})
	return source
}

// pushes tells whether a Source can tell of work by itself.
func (s Subject) pushes(t *testing.T) bool {
	t.Helper()
	source, err := s.Build(s.Config(t, nil))
	if err != nil {
		t.Fatalf("making it: %v", err)
	}
	defer func() { _ = source.Close() }()
	_, pushes := source.(trigger.Pusher)
	return pushes
}

// Run checks a trigger.
func Run(t *testing.T, s Subject) {
	t.Helper()
	if s.Within == 0 {
		s.Within = time.Second
	}
	if s.Values == nil {
		s.Values = []int{0, 2, 3, 11, 0}
	}
	if s.Resource {
		s.run(t, "says its resource and target", s.testResource)
		s.run(t, "refuses wrong parameters", s.testParameters)
		return
	}
	s.run(t, "says its metric and target", s.testSpecs)
	s.run(t, "refuses wrong parameters", s.testParameters)
	s.run(t, "reads what waits", s.testRead)
	if s.Down != nil {
		s.run(t, "fails in time when nobody answers", s.testDown)
	}
	if s.Break != nil {
		s.run(t, "reads again after an outage", s.testOutage)
	}
	if s.Bubble || s.pushes(t) {
		s.run(t, "tells of work", s.testWatch)
	}
	if !s.Variant && !s.Bubble && s.Objects == nil {
		t.Run("bears what servers and ways do", s.testFaults)
	}
}

func (s Subject) run(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	if !s.Bubble {
		t.Run(name, test)
		return
	}
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func (s Subject) testResource(t *testing.T) {
	source := s.open(t, nil)
	specs, err := source.Specs(t.Context())
	if err != nil || len(specs) != 1 || specs[0].Resource == nil || specs[0].Type != autoscalingv2.ResourceMetricSourceType {
		t.Fatalf("Specs() = %+v, %v; want one resource metric", specs, err)
	}
	metric := specs[0].Resource
	if string(metric.Name) != s.Metric || metric.Target.AverageValue.String() != s.Target {
		t.Errorf("resource %s with target %+v; want %s with an average of %s", metric.Name, metric.Target, s.Metric, s.Target)
	}
	if got, err := source.Read(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("Read() = %+v, %v; want nothing", got, err)
	}
	if _, pushes := source.(trigger.Pusher); pushes {
		t.Error("it says that it can tell of changes")
	}
}

func (s Subject) testSpecs(t *testing.T) {
	want := trigger.Name(Index, s.Metric)
	for kind, ask := range map[autoscalingv2.MetricTargetType]autoscalingv2.MetricTargetType{
		autoscalingv2.AverageValueMetricType: "",
		autoscalingv2.ValueMetricType:        autoscalingv2.ValueMetricType,
	} {
		c := s.Config(t, nil)
		c.MetricType = ask
		source, err := s.Build(c)
		if err != nil {
			t.Fatalf("making it: %v", err)
		}
		specs, err := source.Specs(t.Context())
		if err != nil || len(specs) != 1 || specs[0].External == nil {
			t.Fatalf("Specs() = %+v, %v; want one external metric", specs, err)
		}
		external := specs[0].External
		if external.Metric.Name != want || external.Target.Type != kind {
			t.Errorf("metric %s of type %s; want %s of %s", external.Metric.Name, external.Target.Type, want, kind)
		}
		target := external.Target.AverageValue
		if kind == autoscalingv2.ValueMetricType {
			target = external.Target.Value
		}
		if target == nil || target.String() != s.Target {
			t.Errorf("target is %v; want %s", target, s.Target)
		}
		if err := source.Close(); err != nil {
			t.Errorf("closing it: %v", err)
		}
	}
}

func (s Subject) testParameters(t *testing.T) {
	for _, name := range s.Required {
		if source, err := s.Build(s.Config(t, map[string]string{name: ""})); err == nil {
			_ = source.Close()
			t.Errorf("it was made without %s", name)
		}
	}
	for name, value := range s.Wrong {
		if source, err := s.Build(s.Config(t, map[string]string{name: value})); err == nil {
			_ = source.Close()
			t.Errorf("it was made with %s=%s", name, value)
		}
	}
	if s.Resource {
		return
	}
	c := s.Config(t, nil)
	c.MetricType = autoscalingv2.UtilizationMetricType
	if source, err := s.Build(c); err == nil {
		_ = source.Close()
		t.Error("it was made with metric type Utilization")
	}
}

func (s Subject) testRead(t *testing.T) {
	source := s.open(t, nil)
	for _, n := range s.Values {
		s.Set(t, n)
		s.await(t, source, n)
	}
}

// await reads until the value is n, as servers may need a moment to count.
func (s Subject) await(t *testing.T, source trigger.Source, n int) {
	t.Helper()
	var last []trigger.Reading
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		last, err = source.Read(t.Context())
		if err != nil || len(last) != 1 || last[0].Value.Value() != int64(n) {
			continue
		}
		if last[0].Metric != trigger.Name(Index, s.Metric) {
			t.Errorf("read a metric %s; want %s", last[0].Metric, trigger.Name(Index, s.Metric))
		}
		if !s.NoActivation && last[0].Active != (n > 2) {
			t.Errorf("with %d waiting it is active: %v; it is above 2 only", n, last[0].Active)
		}
		return
	}
	t.Fatalf("Read() = %+v, %v; want a value of %d", last, err, n)
}

func (s Subject) testDown(t *testing.T) {
	source := s.open(t, s.Down)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	begin := time.Now()
	if got, err := source.Read(ctx); err == nil {
		t.Errorf("Read() = %+v where nobody answers; want an error", got)
	} else if strings.TrimSpace(err.Error()) == "" {
		t.Error("the error says nothing")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Read() took %s after its context ended at 2 s", took)
	}
}

func (s Subject) testWatch(t *testing.T) {
	s.Set(t, 0)
	source := s.open(t, nil)
	pusher, pushes := source.(trigger.Pusher)
	if !pushes {
		t.Fatal("it cannot tell by itself")
	}
	s.await(t, source, 0)
	for _, mode := range []trigger.Mode{trigger.Idle, trigger.Active} {
		s.Set(t, 0)
		s.await(t, source, 0)
		woken := make(chan struct{}, 1)
		stop := pusher.Watch(mode, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		drain(woken, 300*time.Millisecond) // some wake once when the watch begins
		begin := time.Now()
		s.Set(t, 7)
		select {
		case <-woken:
			t.Logf("told after %s", time.Since(begin).Round(time.Millisecond))
		case <-time.After(s.Within + 5*time.Second):
			t.Errorf("in mode %d nobody told of work within %s", mode, s.Within)
		}
		if took := time.Since(begin); took > s.Within+500*time.Millisecond {
			t.Errorf("in mode %d it took %s to tell of work", mode, took)
		}
		s.await(t, source, 7)
		if s.Untouched != nil {
			s.Untouched(t, 7)
		}
		stop()
		drain(woken, 100*time.Millisecond)
	}
}

// drain forgets wakes until none came for a while.
func drain(woken <-chan struct{}, quiet time.Duration) {
	for {
		select {
		case <-woken:
		case <-time.After(quiet):
			return
		}
	}
}

// EndsInTime checks that a Read whose answer takes half a minute ends with its context.
func EndsInTime(t *testing.T, slow trigger.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := slow.Read(ctx); err == nil {
		t.Error("it read what takes half a minute")
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %s though its context ended", took)
	}
}

package scale_test

import (
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

const always = time.Duration(1<<63 - 1)

func spec(t *testing.T, concurrency int64, annotations map[string]string, change ...func(*scale.Spec)) scale.Spec {
	t.Helper()
	full := map[string]string{}
	for k, v := range annotations {
		full["autoscaling.knative.dev/"+k] = v
	}
	s, err := scale.Parse(full, concurrency, scale.Standard())
	if err != nil {
		t.Fatal(err)
	}
	s.Initialized = true
	for _, fn := range change {
		fn(&s)
	}
	return s
}

func TestWakeFromZero(t *testing.T) {
	cases := map[string]struct {
		concurrency int64
		annotations map[string]string
		inFlight    float64
		want        int32
		reason      scale.Reason
	}{
		"one request starts one":             {inFlight: 1, want: 1, reason: scale.Demand},
		"as many as fit start one":           {inFlight: 70, want: 1, reason: scale.Demand},
		"one more starts two, as a burst":    {inFlight: 71, want: 2, reason: scale.Demand},
		"single concurrency keeps a reserve": {concurrency: 1, inFlight: 1, want: 2, reason: scale.Demand},
		"the maximum bounds": {
			concurrency: 1, annotations: map[string]string{"maxScale": "3"}, inFlight: 10, want: 3, reason: scale.MaxScaled,
		},
		"the activation scale is the least": {
			annotations: map[string]string{"activation-scale": "4"}, inFlight: 1, want: 4, reason: scale.ActivationScaled,
		},
		"the target counts": {
			annotations: map[string]string{"target": "10", "target-utilization-percentage": "50"}, inFlight: 26, want: 6, reason: scale.Demand,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := scale.NewState(spec(t, c.concurrency, c.annotations), 0, t0)
			d := s.Decide(scale.Observation{
				Now: t0, Replicas: 0, InFlight: int64(c.inFlight), Open: new(c.inFlight), BufferedFor: always,
			})
			if d.Want != c.want || d.Replicas != c.want || d.Reason != c.reason {
				t.Errorf("wants %d (%d) for %s, want %d for %s", d.Want, d.Replicas, d.Reason, c.want, c.reason)
			}
			if a, _, _ := s.Activity(); a != scale.Activating {
				t.Errorf("activity is %s", a)
			}
			if m := d.Message(); !strings.HasSuffix(m, ".") {
				t.Errorf("message %q is no sentence", m)
			}
		})
	}
}

// A course runs a State through time as the autoscaler would, with instances that follow at once.
type course struct {
	state    *scale.State
	replicas int32
	last     scale.Decision
}

// run decides every two seconds from one second to another, with a constant load.
func (c *course) run(from, to int, load float64) {
	for s := from; s < to; s++ {
		if s%2 == 0 {
			c.last = c.state.Decide(scale.Observation{
				Now: sec(float64(s)), Ready: int(c.replicas), Replicas: c.replicas, BufferedFor: always,
			})
			c.replicas = c.last.Replicas
		}
		if load > 0 || c.replicas > 0 {
			c.state.Record(sec(float64(s)), load)
		}
	}
}

func TestToZeroTakesAStableWindowOfQuiet(t *testing.T) {
	cases := map[string]struct {
		annotations map[string]string
		change      func(*scale.Spec)
		kept, gone  int // seconds after the last request
		reason      scale.Reason
	}{
		"by default":         {kept: 58, gone: 64, reason: scale.NoTraffic},
		"by a short window":  {annotations: map[string]string{"window": "6s"}, kept: 5, gone: 10, reason: scale.NoTraffic},
		"retention is added": {annotations: map[string]string{"scale-to-zero-pod-retention-period": "40s"}, kept: 98, gone: 104, reason: scale.NoTraffic},
		"but not for what nobody reaches": {
			annotations: map[string]string{"scale-to-zero-pod-retention-period": "40s"},
			change:      func(s *scale.Spec) { s.Reachable = false }, kept: 58, gone: 64, reason: scale.NoTraffic,
		},
		"a minimum stays":               {annotations: map[string]string{"min-scale": "1"}, kept: 500, reason: scale.MinScaled},
		"and a cluster can forbid zero": {change: func(s *scale.Spec) { s.ScaleToZero = false }, kept: 500, reason: scale.ScaleToZeroOff},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sp := spec(t, 0, c.annotations)
			if c.change != nil {
				c.change(&sp)
			}
			run := course{state: scale.NewState(sp, 1, t0), replicas: 1}
			run.run(0, 100, 5)
			run.run(100, 100+c.kept, 0)
			if run.replicas != 1 {
				t.Fatalf("%d instances after %d s of quiet", run.replicas, c.kept)
			}
			if c.gone > 0 {
				run.run(100+c.kept, 100+c.gone, 0)
				if run.replicas != 0 {
					t.Fatalf("%d instances after %d s of quiet: %s", run.replicas, c.gone, run.last.Message())
				}
			}
			if run.last.Reason != c.reason {
				t.Errorf("reason %s, want %s", run.last.Reason, c.reason)
			}
		})
	}
}

func TestRequestsInFlightKeepTheLastInstance(t *testing.T) {
	s := scale.NewState(spec(t, 0, map[string]string{"metric": "rps", "window": "6s"}), 1, t0)
	s.Observe(t0, 1, 1)
	d := s.Decide(scale.Observation{Now: sec(100), Ready: 1, Replicas: 1, InFlight: 1, BufferedFor: always})
	if d.Replicas != 1 || d.Reason != scale.InFlight {
		t.Errorf("wants %d for %s", d.Replicas, d.Reason)
	}
}

func TestNewStateAfterARestart(t *testing.T) {
	cases := map[string]struct {
		before    scale.Activity
		fresh     bool // never initialized
		instances int32
		want      int32 // replicas at once
		later     int32 // after two minutes without requests
	}{
		"many stay for a window, then shrink": {before: scale.Active, instances: 9, want: 9, later: 0},
		"one stays for a window":              {before: scale.Active, instances: 1, want: 1, later: 0},
		"none stays none":                     {before: scale.Inactive, instances: 0, want: 0, later: 0},
		"none stays none, whatever was told":  {before: scale.Active, instances: 0, want: 0, later: 0},
		"a new one starts":                    {fresh: true, instances: scale.Unknown, want: 1, later: 0},
		"a new one without instances starts":  {fresh: true, instances: 0, want: 1, later: 0},
		"one that was given up stays so":      {fresh: true, before: scale.Inactive, instances: 0, want: 0, later: 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sp := spec(t, 0, nil, func(s *scale.Spec) { s.Before, s.Initialized = c.before, !c.fresh })
			run := course{state: scale.NewState(sp, c.instances, t0), replicas: c.instances}
			run.run(0, 1, 0)
			if run.replicas != c.want {
				t.Errorf("%d instances at once, want %d", run.replicas, c.want)
			}
			run.run(1, 140, 0)
			if run.replicas != c.later {
				t.Errorf("%d instances later, want %d", run.replicas, c.later)
			}
		})
	}
}

func TestInstancesThatDoNotComeUpAreGivenUp(t *testing.T) {
	s := scale.NewState(spec(t, 0, nil, func(s *scale.Spec) { s.Initialized = false }), scale.Unknown, t0)
	at := func(after time.Duration) scale.Decision {
		return s.Decide(scale.Observation{Now: t0.Add(after), Replicas: 1, BufferedFor: always})
	}
	if d := at(10 * time.Minute); d.Replicas != 1 || d.Want != scale.Unknown {
		t.Errorf("given up too early: %+v", d)
	}
	if d := at(10*time.Minute + 31*time.Second); d.Replicas != 0 || d.Reason != scale.TimedOut {
		t.Errorf("not given up: %+v", d)
	}
	if a, _, why := s.Activity(); a != scale.Inactive || why != scale.TimedOut {
		t.Errorf("activity %s for %s", a, why)
	}
}

func TestInitialScaleIsReachedOnce(t *testing.T) {
	sp := spec(t, 0, map[string]string{"initial-scale": "3"}, func(s *scale.Spec) { s.Initialized = false })
	s := scale.NewState(sp, scale.Unknown, t0)
	d := s.Decide(scale.Observation{Now: t0, Replicas: scale.Unknown, BufferedFor: always})
	if d.Replicas != 3 || d.Reason != scale.InitialScaled {
		t.Errorf("wants %d for %s, want 3", d.Replicas, d.Reason)
	}
	s.Observe(sec(1), 3, 2)
	if s.Initialized() {
		t.Error("initialized with too few")
	}
	if !s.Observe(sec(2), 3, 3) || !s.Initialized() {
		t.Error("not initialized by three")
	}
	if a, since, _ := s.Activity(); a != scale.Active || !since.Equal(sec(2)) {
		t.Errorf("activity %s since %v", a, since)
	}
}

func TestQuietEndsTheNeedForTime(t *testing.T) {
	cases := map[string]struct {
		annotations map[string]string
		at          int // seconds of quiet after which nothing is left to do
		not         int // seconds of quiet before which something is
	}{
		"at zero":             {at: 70, not: 58},
		"at the minimum":      {annotations: map[string]string{"min-scale": "2"}, at: 70, not: 50},
		"after the retention": {annotations: map[string]string{"scale-to-zero-pod-retention-period": "40s"}, at: 110, not: 98},
		"after the delay":     {annotations: map[string]string{"scale-down-delay": "60s"}, at: 130, not: 100},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run := course{state: scale.NewState(spec(t, 0, c.annotations), 1, t0), replicas: 1}
			run.run(0, 100, 5)
			run.run(100, 100+c.not, 0)
			if run.state.Quiet(sec(float64(100+c.not)), run.last) {
				t.Errorf("quiet after %d s: %s", c.not, run.last.Message())
			}
			run.run(100+c.not, 100+c.at, 0)
			if !run.state.Quiet(sec(float64(100+c.at)), run.last) {
				t.Errorf("not quiet after %d s: %s", c.at, run.last.Message())
			}
		})
	}
}

package scale_test

import (
	"testing"
	"time"

	"ebb.dev/ebb/internal/domain/scale"
)

func TestAFloor(t *testing.T) {
	for name, tt := range map[string]struct {
		floor   int32
		load    float64
		change  func(*scale.Spec)
		want    int32
		message string
	}{
		"it is asked for without requests": {
			floor: 3, want: 3, message: "Requests ask for 0; 3 instances are asked for by triggers.",
		},
		"one is one": {
			floor: 1, want: 1, message: "Requests ask for 0; 1 instance is asked for by triggers.",
		},
		"requests that ask for more decide": {
			floor: 2, load: 200, want: 3, message: "200 requests in flight over 1m (200 over 6s) at 70 an instance: 3 instances.",
		},
		"requests that ask for less do not": {
			floor: 4, load: 70, want: 4, message: "Requests ask for 1; 4 instances are asked for by triggers.",
		},
		"a higher minimum decides": {
			floor: 2, change: func(s *scale.Spec) { s.Min = 3 }, want: 3, message: "Demand asks for 0; the minimum scale is 3.",
		},
		"the maximum bounds it": {
			floor: 9, change: func(s *scale.Spec) { s.Max = 4 }, want: 4,
			message: "Requests ask for 0; 9 instances are asked for by triggers; the maximum scale is 4.",
		},
		"a revision without traffic has none": {
			floor: 3, change: func(s *scale.Spec) { s.Reachable = false }, want: 0, message: "No requests for 1m.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := scale.NewState(spec(t, 0, nil, func(s *scale.Spec) {
				if tt.change != nil {
					tt.change(s)
				}
			}), 0, t0)
			s.Raise(scale.Floor{Count: tt.floor, By: "triggers"})
			ready := 0
			if tt.load > 0 {
				s.Record(t0, tt.load)
				ready = 3
			}
			d := s.Decide(scale.Observation{Now: t0, Ready: ready, BufferedFor: always})
			if d.Want != tt.want || d.Replicas != tt.want || d.Message() != tt.message {
				t.Errorf("wants %d (%d): %s\nwant %d: %s", d.Want, d.Replicas, d.Message(), tt.want, tt.message)
			}
		})
	}
}

func TestAFloorThatGoesLeavesTheWayToZero(t *testing.T) {
	c := &course{state: scale.NewState(spec(t, 0, nil), 0, t0)}
	c.state.Raise(scale.Floor{Count: 4, By: "triggers"})
	c.run(0, 10, 0)
	if c.replicas != 4 || !c.state.Quiet(t0.Add(2*time.Hour), c.last) {
		t.Fatalf("%d instances; quiet: %v", c.replicas, c.state.Quiet(t0.Add(2*time.Hour), c.last))
	}
	c.run(10, 120, 0)
	c.state.Raise(scale.Floor{})
	c.run(120, 122, 0)
	if c.replicas == 0 || c.replicas >= 4 {
		t.Errorf("%d instances at first; want a step down", c.replicas)
	}
	c.run(122, 140, 0)
	if c.replicas != 0 {
		t.Errorf("%d instances in the end: %s", c.replicas, c.last.Message())
	}
}

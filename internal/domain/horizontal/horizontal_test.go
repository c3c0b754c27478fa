package horizontal_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/domain/horizontal"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func average(value, target float64) horizontal.Metric {
	return horizontal.Metric{Name: "s0", Value: value, Target: target, Average: true}
}

func TestUp(t *testing.T) {
	whole := horizontal.Metric{Name: "s1", Value: 30, Target: 10}
	one, disabled, least, window := int32(1), autoscalingv2.DisabledPolicySelect, autoscalingv2.MinChangePolicySelect, int32(60)
	type in = horizontal.Input
	for name, tt := range map[string]struct {
		in   in
		want horizontal.Wish
	}{
		"as many as the average asks for":     {in{Current: 2, Max: 10, Metrics: []horizontal.Metric{average(20, 5)}}, horizontal.Wish{Replicas: 4, By: "s0"}},
		"a part needs a whole replica":        {in{Current: 2, Max: 10, Metrics: []horizontal.Metric{average(16, 5)}}, horizontal.Wish{Replicas: 4, By: "s0"}},
		"a value is left to the autoscaler":   {in{Current: 2, Max: 10, Metrics: []horizontal.Metric{whole}}, horizontal.Wish{Replicas: 2}},
		"the metric that asks for most":       {in{Current: 2, Max: 10, Metrics: []horizontal.Metric{average(15, 5), average(30, 5), whole}}, horizontal.Wish{Replicas: 6, By: "s0"}},
		"within the tolerance":                {in{Current: 10, Max: 20, Metrics: []horizontal.Metric{average(54, 5)}}, horizontal.Wish{Replicas: 10}},
		"never down":                          {in{Current: 5, Max: 10, Metrics: []horizontal.Metric{average(5, 5)}}, horizontal.Wish{Replicas: 5}},
		"no more than the maximum":            {in{Current: 2, Max: 3, Metrics: []horizontal.Metric{average(100, 5)}}, horizontal.Wish{Replicas: 3, By: "s0", Bound: "maxReplicaCount"}},
		"four at once from one":               {in{Current: 1, Max: 100, Metrics: []horizontal.Metric{average(100, 5)}}, horizontal.Wish{Replicas: 5, By: "s0", Bound: "behavior.scaleUp"}},
		"twice as many from ten":              {in{Current: 10, Max: 100, Metrics: []horizontal.Metric{average(500, 5)}}, horizontal.Wish{Replicas: 20, By: "s0", Bound: "behavior.scaleUp"}},
		"what was just added counts":          {in{Current: 5, Max: 100, Added: []horizontal.Change{{At: now.Add(-5 * time.Second), Added: 4}}, Metrics: []horizontal.Metric{average(100, 5)}}, horizontal.Wish{Replicas: 5, By: "s0", Bound: "behavior.scaleUp"}},
		"what was added long ago does not":    {in{Current: 5, Max: 100, Added: []horizontal.Change{{At: now.Add(-20 * time.Second), Added: 4}}, Metrics: []horizontal.Metric{average(100, 5)}}, horizontal.Wish{Replicas: 10, By: "s0", Bound: "behavior.scaleUp"}},
		"scaling up is disabled":              {in{Current: 2, Max: 10, Up: &autoscalingv2.HPAScalingRules{SelectPolicy: &disabled}, Metrics: []horizontal.Metric{average(20, 5)}}, horizontal.Wish{Replicas: 2, By: "s0", Bound: "scaling up is disabled"}},
		"a window is the autoscaler's affair": {in{Current: 2, Max: 10, Up: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window}, Metrics: []horizontal.Metric{average(20, 5)}}, horizontal.Wish{Replicas: 2, By: "s0", Bound: "stabilizationWindowSeconds"}},
		"the least of several policies": {in{Current: 4, Max: 50, Up: &autoscalingv2.HPAScalingRules{SelectPolicy: &least, Policies: []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: one, PeriodSeconds: 15}, {Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		}}, Metrics: []horizontal.Metric{average(100, 5)}}, horizontal.Wish{Replicas: 5, By: "s0", Bound: "behavior.scaleUp"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.in.Now = now
			if diff := cmp.Diff(tt.want, horizontal.Up(tt.in)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestUpStaysBetweenThePresentAndTheMaximum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		in := horizontal.Input{Now: now, Current: 1 + random.Int32N(50), Metrics: []horizontal.Metric{average(random.Float64()*1000, random.Float64()*20)}}
		in.Max = in.Current + random.Int32N(50)
		if w := horizontal.Up(in); w.Replicas < in.Current || w.Replicas > in.Max {
			t.Fatalf("Up(%+v) = %+v", in, w)
		}
	}
}

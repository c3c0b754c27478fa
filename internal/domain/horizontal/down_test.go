package horizontal_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"ebb.dev/ebb/internal/domain/horizontal"
)

func TestAsked(t *testing.T) {
	whole := horizontal.Metric{Name: "s1", Value: 30, Target: 10}
	type in = horizontal.Input
	for name, tt := range map[string]struct {
		in   in
		want horizontal.Wish
	}{
		"less than there is":         {in{Current: 8, Max: 10, Metrics: []horizontal.Metric{average(11, 5)}}, horizontal.Wish{Replicas: 3, By: "s0"}},
		"nothing is the least":       {in{Current: 8, Max: 10, Metrics: []horizontal.Metric{average(0, 5)}}, horizontal.Wish{Replicas: 1}},
		"no less than the minimum":   {in{Current: 8, Min: 2, Max: 10, Metrics: []horizontal.Metric{average(1, 5)}}, horizontal.Wish{Replicas: 2, By: "s0"}},
		"no more than the maximum":   {in{Current: 8, Max: 10, Metrics: []horizontal.Metric{average(100, 5)}}, horizontal.Wish{Replicas: 10, By: "s0"}},
		"a value counts":             {in{Current: 2, Max: 10, Metrics: []horizontal.Metric{average(11, 5), whole}}, horizontal.Wish{Replicas: 6, By: "s1"}},
		"about right is as there is": {in{Current: 10, Max: 20, Metrics: []horizontal.Metric{average(46, 5)}}, horizontal.Wish{Replicas: 10, By: "s0"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, horizontal.Asked(tt.in)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// wished is that n were asked for some time ago.
func wished(ago time.Duration, n int32) horizontal.Wished {
	return horizontal.Wished{At: now.Add(-ago), Wish: horizontal.Wish{Replicas: n, By: "s0"}}
}

func TestDown(t *testing.T) {
	disabled, least := autoscalingv2.DisabledPolicySelect, autoscalingv2.MinChangePolicySelect
	type (
		list  = []horizontal.Wished
		rules = autoscalingv2.HPAScalingRules
	)
	pods := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 1, PeriodSeconds: 60}
	percent := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 50, PeriodSeconds: 60}
	taken := []horizontal.Change{{At: now.Add(-30 * time.Second), Added: -1}, {At: now.Add(-2 * time.Minute), Added: -3}}
	for name, tt := range map[string]struct {
		rules *rules
		added []horizontal.Change
		asked list
		want  horizontal.Wish
	}{
		"nothing was asked for":             {nil, nil, nil, horizontal.Wish{Replicas: 8}},
		"the highest wish counts":           {nil, nil, list{wished(4*time.Minute, 6), wished(0, 2)}, horizontal.Wish{Replicas: 6, By: "s0"}},
		"for five minutes":                  {nil, nil, list{wished(6*time.Minute, 6), wished(0, 2)}, horizontal.Wish{Replicas: 2, By: "s0"}},
		"or as long as is said":             {&rules{StabilizationWindowSeconds: new(int32(60))}, nil, list{wished(2*time.Minute, 6), wished(0, 2)}, horizontal.Wish{Replicas: 2, By: "s0"}},
		"even not at all":                   {&rules{StabilizationWindowSeconds: new(int32(0))}, nil, list{wished(time.Second, 6), wished(0, 2)}, horizontal.Wish{Replicas: 2, By: "s0"}},
		"more is not its affair":            {nil, nil, list{wished(0, 20)}, horizontal.Wish{Replicas: 8}},
		"scaling down is disabled":          {&rules{SelectPolicy: &disabled}, nil, list{wished(0, 2)}, horizontal.Wish{Replicas: 8}},
		"by pods":                           {&rules{Policies: []autoscalingv2.HPAScalingPolicy{pods}}, nil, list{wished(0, 2)}, horizontal.Wish{Replicas: 7, By: "s0", Bound: "behavior.scaleDown"}},
		"what was just taken away counts":   {&rules{Policies: []autoscalingv2.HPAScalingPolicy{pods}}, taken, list{wished(0, 2)}, horizontal.Wish{Replicas: 8, By: "s0", Bound: "behavior.scaleDown"}},
		"the most that a policy allows":     {&rules{Policies: []autoscalingv2.HPAScalingPolicy{pods, percent}}, nil, list{wished(0, 2)}, horizontal.Wish{Replicas: 4, By: "s0", Bound: "behavior.scaleDown"}},
		"the least that a policy allows":    {&rules{SelectPolicy: &least, Policies: []autoscalingv2.HPAScalingPolicy{percent, pods}}, nil, list{wished(0, 2)}, horizontal.Wish{Replicas: 7, By: "s0", Bound: "behavior.scaleDown"}},
		"policies that allow it do not say": {&rules{Policies: []autoscalingv2.HPAScalingPolicy{percent}}, nil, list{wished(0, 5)}, horizontal.Wish{Replicas: 5, By: "s0"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := horizontal.Down(horizontal.Input{Now: now, Current: 8, Max: 10, Added: tt.added}, tt.rules, tt.asked)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDownStaysBetweenWhatWasAskedForAndThePresent(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		in := horizontal.Input{Now: now, Current: 1 + random.Int32N(50)}
		asked := wished(0, 1+random.Int32N(60))
		policy := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: random.Int32N(101), PeriodSeconds: 60}
		rules := &autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{policy}}
		if w := horizontal.Down(in, rules, []horizontal.Wished{asked}); w.Replicas > in.Current || w.Replicas < min(asked.Replicas, in.Current) {
			t.Fatalf("Down(%+v) = %+v of %d", in, w, asked.Replicas)
		}
	}
}

func TestAloneValuesCount(t *testing.T) {
	in := horizontal.Input{Now: now, Current: 2, Max: 10, Alone: true, Metrics: []horizontal.Metric{{Name: "s1", Value: 20, Target: 10}}}
	if diff := cmp.Diff(horizontal.Wish{Replicas: 4, By: "s1"}, horizontal.Up(in)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

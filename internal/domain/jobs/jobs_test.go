package jobs_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/domain/jobs"
)

func TestLimitsAreThoseTheFieldsMean(t *testing.T) {
	for name, tc := range map[string]struct {
		least, most *int32
		want        jobs.Limits
	}{
		"nothing said":                   {want: jobs.Limits{Max: 100}},
		"both said":                      {least: new(int32(2)), most: new(int32(10)), want: jobs.Limits{Min: 2, Max: 10}},
		"a minimum beyond the maximum":   {least: new(int32(2)), most: new(int32(1)), want: jobs.Limits{Min: 1, Max: 1}},
		"a minimum beyond the default":   {least: new(int32(120)), want: jobs.Limits{Min: 120, Max: 120}},
		"numbers that the API never has": {least: new(int32(-1)), most: new(int32(-1)), want: jobs.Limits{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := jobs.NewLimits(tc.least, tc.most); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// trigger has one metric with a target of 2.
func trigger(value float64, active bool) jobs.Trigger {
	return jobs.Trigger{
		Targets:  []jobs.Target{{Metric: "m", Average: 2}},
		Readings: []jobs.Reading{{Metric: "m", Value: value, Active: active}},
	}
}

func TestDemandCombinesTriggers(t *testing.T) {
	several := []jobs.Trigger{trigger(5, true), trigger(8, true), trigger(100, false)}
	for name, tc := range map[string]struct {
		triggers []jobs.Trigger
		how      jobs.Combination
		limits   jobs.Limits
		want     jobs.Demand
	}{
		"nothing":                         {want: jobs.Demand{}},
		"the largest, if nothing is said": {triggers: several, want: jobs.Demand{Active: true, Queue: 8, Jobs: 4, Whole: 4, Level: 56.5}},
		"the smallest of those active":    {triggers: several, how: jobs.Smallest, want: jobs.Demand{Active: true, Queue: 5, Jobs: 3, Whole: 3, Level: 56.5}},
		"their average, rounded up":       {triggers: several, how: jobs.Average, want: jobs.Demand{Active: true, Queue: 7, Jobs: 4, Whole: 4, Level: 56.5}},
		"their sum":                       {triggers: several, how: jobs.Sum, want: jobs.Demand{Active: true, Queue: 13, Jobs: 7, Whole: 7, Level: 56.5}},
		"more than there may be": {
			triggers: several, how: jobs.Sum, limits: jobs.Limits{Max: 4, Min: 1},
			want: jobs.Demand{Active: true, Queue: 13, Jobs: 3, Whole: 7, Level: 56.5},
		},
		"a minimum makes it active": {limits: jobs.Limits{Max: 4, Min: 1}, want: jobs.Demand{Active: true}},
		"work below the activation threshold": {
			triggers: []jobs.Trigger{trigger(3, false)}, want: jobs.Demand{Level: 1.5},
		},
		"no amount at all": {
			triggers: []jobs.Trigger{trigger(math.NaN(), true), trigger(math.Inf(1), true), trigger(-3, true)}, want: jobs.Demand{},
		},
		"of a trigger's two metrics the first counts": {
			triggers: []jobs.Trigger{{
				Targets:  []jobs.Target{{Metric: "a", Average: 1}, {Metric: "b", Average: 3}},
				Readings: []jobs.Reading{{Metric: "a", Value: 4, Active: true}, {Metric: "b", Value: 90, Active: true}},
			}},
			how: jobs.Sum, want: jobs.Demand{Active: true, Queue: 4, Jobs: 2, Whole: 2, Level: 2},
		},
		"of a trigger's two metrics the second alone is active": {
			triggers: []jobs.Trigger{{
				Targets:  []jobs.Target{{Metric: "a", Average: 1}, {Metric: "b", Average: 3}},
				Readings: []jobs.Reading{{Metric: "a", Value: 4}, {Metric: "b", Value: 90, Active: true}},
			}},
			how: jobs.Sum, want: jobs.Demand{Active: true, Level: 2},
		},
		"a trigger without a target": {
			triggers: []jobs.Trigger{{Targets: []jobs.Target{{Metric: "a"}}, Readings: []jobs.Reading{{Metric: "a", Value: 4, Active: true}}}},
			want:     jobs.Demand{Active: true, Queue: 4},
		},
		"a target without a reading": {
			triggers: []jobs.Trigger{{Targets: []jobs.Target{{Metric: "a", Average: 1}}}}, want: jobs.Demand{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.limits.Max == 0 {
				tc.limits.Max = 100
			}
			if diff := cmp.Diff(tc.want, jobs.NewDemand(tc.triggers, tc.how, tc.limits)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// waiting is work for so many Jobs.
func waiting(n int64, limits jobs.Limits) jobs.Demand {
	return jobs.Demand{
		Active: n > 0 || limits.Min > 0, Queue: n, Jobs: min(n, limits.Max-limits.Min), Whole: n, Level: float64(n),
	}
}

func TestDecideByStrategy(t *testing.T) {
	ten := jobs.Limits{Max: 10}
	for name, tc := range map[string]struct {
		kind          jobs.Kind
		deduct        int64
		part          float64
		work          int64
		running       int64
		pending, held int64
		limits        jobs.Limits
		want          int64
		reason        jobs.Reason
	}{
		"default: nothing waits":                       {want: 0, reason: jobs.Inactive},
		"default: a job for each unit":                 {work: 3, want: 3, reason: jobs.Wanted},
		"default: those that run do some of it":        {work: 5, running: 3, want: 2, reason: jobs.Enough},
		"default: those that run do all of it":         {work: 3, running: 3, reason: jobs.Enough},
		"default: at most ten":                         {work: 40, running: 4, want: 6, reason: jobs.Full},
		"accurate: what waits is besides what runs":    {kind: jobs.Accurate, work: 3, running: 4, want: 3, reason: jobs.Wanted},
		"accurate: pending jobs will take some":        {kind: jobs.Accurate, work: 3, running: 4, pending: 2, want: 1, reason: jobs.OnTheWay},
		"accurate: so will those that just began":      {kind: jobs.Accurate, work: 3, running: 4, held: 3, reason: jobs.OnTheWay},
		"accurate: at most ten":                        {kind: jobs.Accurate, work: 5, running: 8, want: 2, reason: jobs.Full},
		"eager: what waits is besides what runs":       {kind: jobs.Eager, work: 4, running: 4, want: 4, reason: jobs.Wanted},
		"eager: as upstream keeps room":                {kind: jobs.Eager, work: 9, running: 6, pending: 1, want: 3, reason: jobs.Enough},
		"eager: no job twice for one unit":             {kind: jobs.Eager, work: 4, running: 4, pending: 4, reason: jobs.OnTheWay},
		"custom: a part of what runs, and a deduction": {kind: jobs.Custom, deduct: 1, part: 0.5, work: 9, running: 4, want: 6, reason: jobs.Full},
		"custom: never above the maximum":              {kind: jobs.Custom, work: 10, running: 9, want: 1, reason: jobs.Full},
		"custom: no job twice for one unit":            {kind: jobs.Custom, work: 2, running: 2, pending: 1, held: 1, reason: jobs.OnTheWay},
		"minimum: kept without work":                   {limits: jobs.Limits{Min: 2, Max: 10}, want: 2, reason: jobs.Minimum},
		"minimum: work has jobs of its own":            {limits: jobs.Limits{Min: 1, Max: 10}, work: 1, want: 2, reason: jobs.Wanted},
		"minimum: beyond the maximum":                  {limits: jobs.NewLimits(new(int32(2)), new(int32(1))), want: 1, reason: jobs.Minimum},
		"minimum: and more work than room":             {limits: jobs.Limits{Min: 2, Max: 4}, work: 3, want: 4, reason: jobs.Minimum},
		"minimum: there already, work comes":           {limits: jobs.Limits{Min: 2, Max: 10}, work: 3, running: 2, want: 3, reason: jobs.Wanted},
		"minimum: there and pending, work comes":       {limits: jobs.Limits{Min: 2, Max: 10}, work: 3, running: 2, pending: 2, want: 3, reason: jobs.Wanted},
		"minimum: lowered with jobs there":             {limits: jobs.Limits{Min: 1, Max: 10}, running: 3, reason: jobs.Enough},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.limits.Max == 0 {
				tc.limits = ten
			}
			if tc.kind == "" {
				tc.kind = jobs.Default
			}
			c := jobs.Counts{Running: tc.running, RunningThen: tc.running, Pending: tc.pending, Held: tc.held}
			got := jobs.Decide(waiting(tc.work, tc.limits), c, tc.limits, jobs.Strategy{Kind: tc.kind, Deduction: tc.deduct, Percentage: tc.part})
			if got.Create != tc.want || got.Reason != tc.reason {
				t.Errorf("got %d (%s), want %d (%s): %s", got.Create, got.Reason, tc.want, tc.reason, got.Message())
			}
		})
	}
}

// TestDecideIsUpstreamsFormula compares, where no Job is pending, what is decided with the formulas
// that KEDA documents.
func TestDecideIsUpstreamsFormula(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		limits := jobs.Limits{Max: int64(1 + r.IntN(20))}
		work, running := int64(1+r.IntN(30)), r.Int64N(limits.Max+1)
		deduct, part := r.Int64N(4), r.Float64()
		c := jobs.Counts{Running: running, RunningThen: running}
		m := min(work, limits.Max)
		for kind, want := range map[jobs.Kind]int64{
			jobs.Default:  m - running,
			jobs.Custom:   min(m-deduct-int64(float64(running)*part), limits.Max),
			jobs.Accurate: min(m, limits.Max-running),
			jobs.Eager:    min(limits.Max-running, m),
		} {
			want = max(0, min(want, limits.Max-running)) // upstream's custom may exceed the maximum
			got := jobs.Decide(waiting(work, limits), c, limits, jobs.Strategy{Kind: kind, Deduction: deduct, Percentage: part})
			if got.Create != want {
				t.Fatalf("%s: work %d, running %d of %d, deduct %d, part %g: %d, want %d", kind, work, running, limits.Max, deduct, part, got.Create, want)
			}
		}
	}
}

// TestDecideKeepsItsBounds tries all sorts of numbers.
func TestDecideKeepsItsBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	kinds := []jobs.Kind{jobs.Default, jobs.Custom, jobs.Accurate, jobs.Eager}
	for range 200_000 {
		most := r.Int64N(15)
		limits := jobs.Limits{Max: most, Min: r.Int64N(most + 1)}
		running := r.Int64N(20)
		pending := r.Int64N(running + 1)
		c := jobs.Counts{Running: running, Pending: pending, Held: r.Int64N(running - pending + 3), RunningThen: running + r.Int64N(3)}
		d := waiting(r.Int64N(30), limits)
		s := jobs.Strategy{Kind: kinds[r.IntN(4)], Percentage: r.Float64() * 2, Deduction: r.Int64N(3) - 1}
		got := jobs.Decide(d, c, limits, s)
		switch {
		case got.Create < 0 || got.Short < 0:
			t.Fatalf("%+v %+v %+v: %d made, %d short", d, c, limits, got.Create, got.Short)
		case got.Create > 0 && running+got.Create > limits.Max:
			t.Fatalf("%+v %+v %+v: %d are too many", d, c, limits, got.Create)
		case got.Create-got.Least > max(0, d.Jobs-max(0, pending+got.Least+c.Held-limits.Min)):
			t.Fatalf("%+v %+v %+v: %d made, some for work that has a job", d, c, limits, got.Create)
		case got.Create == 0 && running < limits.Min:
			t.Fatalf("%+v %+v %+v: not even the minimum", d, c, limits)
		case got.Message() == "":
			t.Fatal("no message")
		}
	}
}

func TestStrategyReadsItsFields(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, part string
		want       jobs.Strategy
	}{
		"nothing said":                    {want: jobs.Strategy{Kind: jobs.Default}},
		"accurate":                        {kind: "accurate", want: jobs.Strategy{Kind: jobs.Accurate}},
		"eager":                           {kind: "eager", want: jobs.Strategy{Kind: jobs.Eager}},
		"custom":                          {kind: "custom", part: "0.5", want: jobs.Strategy{Kind: jobs.Custom, Deduction: 3, Percentage: 0.5}},
		"custom without a part":           {kind: "custom", want: jobs.Strategy{Kind: jobs.Default}},
		"a strategy that nobody heard of": {kind: "lazy", want: jobs.Strategy{Kind: jobs.Default}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := jobs.NewStrategy(tc.kind, new(int32(3)), tc.part); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestExcessIsTheOldest(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	all := []jobs.Finished{
		{Name: "s3", Ended: at(30)},
		{Name: "s1", Ended: at(10)},
		{Name: "s2", Ended: at(20)},
		{Name: "f2", Failed: true, Ended: at(15), Created: at(2)},
		{Name: "f1", Failed: true, Ended: at(15), Created: at(1)},
		{Name: "f3", Failed: true, Ended: at(16)},
	}
	for name, tc := range map[string]struct {
		succeeded, failed int
		want              string
	}{
		"all are kept":             {succeeded: 3, failed: 3},
		"none are kept":            {want: "s1 f1 f2 f3 s2 s3"},
		"the newest of each":       {succeeded: 1, failed: 1, want: "s1 f1 f2 s2"},
		"one of one kind too many": {succeeded: 3, failed: 2, want: "f1"},
		"no number at all":         {succeeded: -1, failed: 3, want: "s1 s2 s3"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range jobs.Excess(all, tc.succeeded, tc.failed) {
				got = append(got, f.Name)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRollout(t *testing.T) {
	if jobs.Outdated("3", 3) || !jobs.Outdated("2", 3) || !jobs.Outdated("", 3) {
		t.Error("a job is outdated when it is of another version, or of none that is known")
	}
	if jobs.Gradual("", "") || jobs.Gradual("immediate", "gradual") || !jobs.Gradual("", "gradual") || !jobs.Gradual("gradual", "") {
		t.Error("jobs are left to finish when the deprecated field says so or, without it, the other")
	}
}

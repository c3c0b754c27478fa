package jobs_test

import (
	"math/rand/v2"
	"testing"

	"github.com/kedacore/keda/v2/pkg/scaling/scaledjob"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/metrics/pkg/apis/external_metrics"

	"ebb.dev/ebb/internal/domain/jobs"
)

// both makes up a trigger, as this package and as KEDA knows it.
func both(r *rand.Rand, forWork int64) (jobs.Trigger, []scaledjob.ScalerMetrics) {
	var (
		ours   jobs.Trigger
		specs  []autoscalingv2.MetricSpec
		theirs []scaledjob.ScalerMetrics
		active bool
	)
	names := []string{"a", "b"}[:1+r.IntN(2)]
	for _, name := range names {
		target := r.Int64N(6)
		ours.Targets = append(ours.Targets, jobs.Target{Metric: name, Average: float64(target)})
		specs = append(specs, autoscalingv2.MetricSpec{External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name},
			Target: autoscalingv2.MetricTarget{AverageValue: resource.NewQuantity(target, resource.DecimalSI)},
		}})
	}
	for _, name := range names {
		value := resource.NewMilliQuantity(r.Int64N(20_000), resource.DecimalSI)
		reading := jobs.Reading{Metric: name, Value: value.AsApproximateFloat64(), Active: r.IntN(3) > 0}
		ours.Readings = append(ours.Readings, reading)
		active = active || reading.Active
		queue, most, _ := scaledjob.CalculateQueueLengthAndMaxValue(
			[]external_metrics.ExternalMetricValue{{MetricName: name, Value: *value}}, specs, forWork)
		theirs = append(theirs, scaledjob.ScalerMetrics{QueueLength: queue, MaxValue: most, IsActive: active})
	}
	return ours, theirs
}

// TestDemandIsUpstreams compares the demand of made-up triggers with what KEDA makes of them.
func TestDemandIsUpstreams(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50_000 {
		most := 1 + r.Int32N(20)
		least := max(0, r.Int32N(2*most+1)-most)
		limits := jobs.NewLimits(&least, &most)
		var ours []jobs.Trigger
		var theirs []scaledjob.ScalerMetrics
		for range 1 + r.IntN(3) {
			one, other := both(r, limits.Max-limits.Min)
			ours, theirs = append(ours, one), append(theirs, other...)
		}
		how := []string{"", "min", "max", "avg", "sum"}[r.IntN(5)]
		active, queue, wanted, _ := scaledjob.IsScaledJobActive(theirs, how, limits.Min, limits.Max-limits.Min)
		got := jobs.NewDemand(ours, jobs.Combination(how), limits)
		if got.Active != active || got.Queue != queue || got.Jobs != wanted {
			t.Fatalf("%q of %+v: got %+v, KEDA has %v, %d, %d", how, ours, got, active, queue, wanted)
		}
	}
}

package oracle

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/autoscaling"
	"knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	asconfig "knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/config/autoscalerconfig"
	kpa "knative.dev/serving/pkg/reconciler/autoscaling/kpa/resources"
	"knative.dev/serving/pkg/reconciler/autoscaling/resources"

	"ebb.dev/ebb/internal/domain/scale"
)

// TestStandardIsUpstreams compares the built-in defaults.
func TestStandardIsUpstreams(t *testing.T) {
	config, err := asconfig.NewConfigFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults(config), scale.Standard()); diff != "" {
		t.Errorf("Standard() (-upstream +ebb):\n%s", diff)
	}
}

// TestParseIsUpstreams compares what is made of random annotations.
func TestParseIsUpstreams(t *testing.T) {
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 5))
		config := randomConfig(t, r)
		annotations, concurrency := randomAnnotations(r), int64(pick(r, 0, 0, 1, 10, r.IntN(1000)))
		got, err := scale.Parse(annotations, concurrency, defaults(config))
		if err != nil {
			t.Fatalf("annotations %v: %v", annotations, err)
		}
		if diff := cmp.Diff(expect(annotations, concurrency, config), got); diff != "" {
			t.Fatalf("annotations %v, concurrency %d (-upstream +ebb):\n%s", annotations, concurrency, diff)
		}
	}
}

// expect is what upstream makes of the annotations, in our words.
func expect(annotations map[string]string, concurrency int64, config *autoscalerconfig.Config) scale.Spec {
	pa := &v1alpha1.PodAutoscaler{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}
	pa.Spec.ContainerConcurrency = concurrency
	d := kpa.MakeDecider(pa, config).Spec
	m := resources.MakeMetric(pa, "", config)
	s := scale.Spec{
		Class: scale.Class(pa.Class()), Metric: scale.Metric(d.ScalingMetric), Aggregation: scale.Linear,
		Target: d.TargetValue, Total: d.TotalValue,
		StableWindow: m.Spec.StableWindow, PanicWindow: m.Spec.PanicWindow,
		PanicThreshold: d.PanicThreshold, MaxScaleUpRate: d.MaxScaleUpRate, MaxScaleDownRate: d.MaxScaleDownRate,
		TargetBurstCapacity: d.TargetBurstCapacity, ScaleDownDelay: d.ScaleDownDelay,
		ActivationScale: d.ActivationScale, Initial: d.InitialScale, Reachable: d.Reachable,
		ScaleToZero: config.EnableScaleToZero, Grace: config.ScaleToZeroGracePeriod,
		Retention: config.ScaleToZeroPodRetentionPeriod, ActivationTimeout: progressDeadline + 30*time.Second,
	}
	s.Min, s.Max = pa.ScaleBounds(config)
	if m.AggregationAlgorithm() == autoscaling.MetricAggregationAlgorithmWeightedExponential {
		s.Aggregation = scale.WeightedExponential
	}
	if retention, ok := pa.ScaleToZeroPodRetention(); ok {
		s.Retention = retention
	}
	if deadline, ok := pa.ProgressDeadline(); ok {
		s.ActivationTimeout = deadline + 30*time.Second
	}
	return s
}

const progressDeadline = 10 * time.Minute

// defaults puts upstream's settings in our words, as the controllers do.
func defaults(c *autoscalerconfig.Config) scale.Defaults {
	return scale.Defaults{
		Class: scale.Class(c.PodAutoscalerClass), ScaleToZero: c.EnableScaleToZero,
		AllowZeroInitialScale: c.AllowZeroInitialScale,
		TargetConcurrency:     c.ContainerConcurrencyTargetDefault, ConcurrencyUtilization: c.ContainerConcurrencyTargetFraction,
		TargetRPS: c.RPSTargetDefault, OtherUtilization: c.TargetUtilization,
		MaxScaleUpRate: c.MaxScaleUpRate, MaxScaleDownRate: c.MaxScaleDownRate,
		StableWindow: c.StableWindow, PanicWindowPercentage: c.PanicWindowPercentage,
		PanicThresholdPercentage: c.PanicThresholdPercentage, TargetBurstCapacity: c.TargetBurstCapacity,
		Grace: c.ScaleToZeroGracePeriod, Retention: c.ScaleToZeroPodRetentionPeriod, ScaleDownDelay: c.ScaleDownDelay,
		InitialScale: c.InitialScale, MinScale: c.MinScale, MaxScale: c.MaxScale, ProgressDeadline: progressDeadline,
	}
}

func randomConfig(t *testing.T, r *rand.Rand) *autoscalerconfig.Config {
	t.Helper()
	data := map[string]string{}
	for key, value := range map[string]string{
		"container-concurrency-target-percentage": number(1 + r.Float64()*99),
		"container-concurrency-target-default":    number(1 + r.Float64()*200),
		"requests-per-second-target-default":      number(1 + r.Float64()*500),
		"target-burst-capacity":                   number(float64(r.IntN(400))),
		"panic-window-percentage":                 number(1 + r.Float64()*99),
		"panic-threshold-percentage":              number(110 + r.Float64()*800),
		"stable-window":                           seconds(6 + r.IntN(600)),
		"scale-down-delay":                        seconds(r.IntN(600)),
		"scale-to-zero-pod-retention-period":      seconds(r.IntN(600)),
		"initial-scale":                           strconv.Itoa(1 + r.IntN(5)),
		"allow-zero-initial-scale":                pick(r, "true", "false"),
		"enable-scale-to-zero":                    pick(r, "true", "false"),
		"min-scale":                               strconv.Itoa(r.IntN(4)),
		"max-scale":                               strconv.Itoa(5 + r.IntN(9)),
	} {
		if r.IntN(2) == 0 {
			data[key] = value
		}
	}
	config, err := asconfig.NewConfigFromMap(data)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func randomAnnotations(r *rand.Rand) map[string]string {
	annotations := map[string]string{}
	for key, value := range map[string]string{
		"metric": pick(r, "concurrency", "rps"), "target": number(0.01 + r.Float64()*200),
		"target-utilization-percentage": number(1 + r.Float64()*99), "targetUtilizationPercentage": "50",
		"min-scale": strconv.Itoa(r.IntN(9)), "minScale": "1", "max-scale": strconv.Itoa(r.IntN(9)), "maxScale": "8",
		"initial-scale": strconv.Itoa(r.IntN(4)), "initialScale": "2", "activation-scale": strconv.Itoa(2 + r.IntN(4)),
		"window": seconds(6 + r.IntN(3000)), "scale-down-delay": seconds(r.IntN(3600)), "scaleDownDelay": "7s",
		"panic-window-percentage": number(1 + r.Float64()*99), "panicWindowPercentage": "20.0",
		"panic-threshold-percentage": number(110 + r.Float64()*800), "panicThresholdPercentage": "150",
		"target-burst-capacity": strconv.Itoa(-1 + r.IntN(300)), "targetBurstCapacity": "0",
		"scale-to-zero-pod-retention-period": seconds(r.IntN(3600)), "scaleToZeroPodRetentionPeriod": "1m5s",
		"metric-aggregation-algorithm": pick(r, "linear", "weighted-exponential", "weightedExponential"),
		"metricAggregationAlgorithm":   "weightedExponential", "class": string(scale.KPA),
	} {
		if r.IntN(3) == 0 {
			annotations[autoscaling.GroupName+"/"+key] = value
		}
	}
	if r.IntN(4) == 0 {
		annotations["serving.knative.dev/progress-deadline"] = seconds(1 + r.IntN(900))
	}
	return annotations
}

func number(f float64) string { return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64) }

func seconds(n int) string { return (time.Duration(n) * time.Second).String() }

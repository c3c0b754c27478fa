package scale

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// minTarget is the smallest target per instance; annotations below it are raised to it.
const minTarget = 0.01

// activationBuffer is added to the progress deadline, so that the reason why instances do not come up
// is published before the wish is given up.
const activationBuffer = 30 * time.Second

const (
	group            = "autoscaling.knative.dev/"
	servingGroup     = "serving.knative.dev/"
	progressDeadline = "progress-deadline" // the one setting from servingGroup
)

// Parse makes a Spec from a revision's annotations, its containerConcurrency (0 is unlimited) and the
// cluster's defaults. Annotations are accepted in kebab case and in the older camel case, kebab
// winning. Reachable, Initialized and Before are the caller's to fill in.
//
// A value that cannot be read is an error that names the annotation, and the default stands in its
// place in the Spec; admission has normally refused it before, with tighter bounds.
func Parse(annotations map[string]string, containerConcurrency int64, d Defaults) (Spec, error) {
	p := parser{annotations: annotations}
	s := Spec{
		Class:               Class(p.text(string(d.Class), "class")),
		Metric:              Metric(p.text(string(Concurrency), "metric")),
		Aggregation:         aggregation(p.text("", "metric-aggregation-algorithm", "metricAggregationAlgorithm")),
		StableWindow:        p.duration(d.StableWindow, "window"),
		PanicThreshold:      p.float(d.PanicThresholdPercentage, "panic-threshold-percentage", "panicThresholdPercentage") / 100,
		MaxScaleUpRate:      d.MaxScaleUpRate,
		MaxScaleDownRate:    d.MaxScaleDownRate,
		TargetBurstCapacity: p.float(d.TargetBurstCapacity, "target-burst-capacity", "targetBurstCapacity"),
		ScaleDownDelay:      p.duration(d.ScaleDownDelay, "scale-down-delay", "scaleDownDelay"),
		ActivationScale:     p.count(0, "activation-scale"),
		Min:                 p.count(d.MinScale, "min-scale", "minScale"),
		Max:                 p.count(d.MaxScale, "max-scale", "maxScale"),
		Initial:             p.count(d.InitialScale, "initial-scale", "initialScale"),
		ScaleToZero:         d.ScaleToZero,
		Grace:               d.Grace,
		Retention:           p.duration(d.Retention, "scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod"),
		ActivationTimeout:   p.duration(d.ProgressDeadline, progressDeadline) + activationBuffer,
		Reachable:           true,
	}
	if s.Initial == 0 && !d.AllowZeroInitialScale {
		s.Initial = d.InitialScale
	}
	percentage := p.float(d.PanicWindowPercentage, "panic-window-percentage", "panicWindowPercentage")
	s.PanicWindow = max(time.Second,
		time.Duration(float64(s.StableWindow)*percentage/100).Round(time.Second))
	s.Target, s.Total = p.target(s.Metric, float64(containerConcurrency), d)
	return s, p.err
}

// aggregation accepts both spellings of the exponential aggregation and reads all else as linear, as
// the annotation is experimental upstream.
func aggregation(name string) Aggregation {
	switch name {
	case string(WeightedExponential), "weightedExponential":
		return WeightedExponential
	default:
		return Linear
	}
}

// A parser reads annotations one by one and keeps the first error.
type parser struct {
	annotations map[string]string
	err         error
}

// find returns the annotation under the first of names that is set.
func (p *parser) find(names []string) (key, value string, ok bool) {
	for _, name := range names {
		key = group + name
		if name == progressDeadline {
			key = servingGroup + name
		}
		if value, ok = p.annotations[key]; ok {
			return key, value, true
		}
	}
	return "", "", false
}

func (p *parser) text(otherwise string, names ...string) string {
	if _, value, ok := p.find(names); ok {
		return value
	}
	return otherwise
}

func (p *parser) float(otherwise float64, names ...string) float64 {
	return read(p, otherwise, names, func(value string) (float64, error) {
		f, err := strconv.ParseFloat(value, 64)
		if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
			err = strconv.ErrRange
		}
		return f, err
	})
}

func (p *parser) count(otherwise int32, names ...string) int32 {
	return read(p, otherwise, names, func(value string) (int32, error) {
		n, err := strconv.ParseInt(value, 10, 32)
		if err == nil && n < 0 {
			err = strconv.ErrRange
		}
		return int32(n), err
	})
}

func (p *parser) duration(otherwise time.Duration, names ...string) time.Duration {
	return read(p, otherwise, names, func(value string) (time.Duration, error) {
		d, err := time.ParseDuration(value)
		if err == nil && d < 0 {
			err = strconv.ErrRange
		}
		return d, err
	})
}

// read returns what convert makes of the annotation under the first of names that is set. Without
// one, or when it cannot be read, it returns otherwise.
func read[T any](p *parser, otherwise T, names []string, convert func(string) (T, error)) T {
	key, value, ok := p.find(names)
	if !ok {
		return otherwise
	}
	v, err := convert(value)
	if err != nil {
		if p.err == nil {
			p.err = fmt.Errorf("reading annotation %s: %w", key, err)
		}
		return otherwise
	}
	return v
}

// target returns what an instance should carry and what it can carry.
func (p *parser) target(metric Metric, concurrency float64, d Defaults) (target, total float64) {
	utilization := d.ConcurrencyUtilization
	switch {
	case metric == RPS:
		total, utilization = d.TargetRPS, d.OtherUtilization
	case concurrency > 0:
		total = concurrency
	default:
		total = d.TargetConcurrency
	}
	if wished := p.float(0, "target"); wished > 0 {
		total = wished
		if metric == Concurrency && concurrency > 0 {
			total = min(wished, concurrency)
		}
	}
	if percent := p.float(0, "target-utilization-percentage", "targetUtilizationPercentage"); percent > 0 {
		utilization = percent / 100
	}
	return max(minTarget, total*utilization), total
}

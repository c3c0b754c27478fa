package oracle

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/autoscaler/aggregation"
	"knative.dev/serving/pkg/autoscaler/scaling"

	"ebb.dev/ebb/internal/domain/scale"
)

// steps is how long each random history is.
const steps = 60

// histories is how many of them are compared: EBB_HISTORIES, or enough to notice a slip.
func histories(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("EBB_HISTORIES")
	if text == "" {
		return 50_000
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		t.Fatalf("EBB_HISTORIES is %q, want how many histories to compare", text)
	}
	return n
}

// buckets is what upstream's two kinds of windows have in common.
type buckets interface {
	Record(now time.Time, value float64)
	WindowAverage(now time.Time) float64
	IsEmpty(now time.Time) bool
}

func newBuckets(window time.Duration, how scale.Aggregation) buckets {
	if how == scale.WeightedExponential {
		return aggregation.NewWeightedFloat64Buckets(window, time.Second)
	}
	return aggregation.NewTimedFloat64Buckets(window, time.Second)
}

// An upstream is the autoscaler of one revision as Knative runs it, fed by hand.
type upstream struct {
	stable, panic buckets
	ready         int
	scaler        scaling.UniScaler
}

func (u *upstream) ReadyCount() (int, error)    { return u.ready, nil }
func (u *upstream) NotReadyCount() (int, error) { return 0, nil }

func (u *upstream) StableAndPanicConcurrency(_ types.NamespacedName, now time.Time) (stable, panicked float64, err error) {
	return u.stable.WindowAverage(now), u.panic.WindowAverage(now), nil
}

func (u *upstream) StableAndPanicRPS(key types.NamespacedName, now time.Time) (stable, panicked float64, err error) {
	return u.StableAndPanicConcurrency(key, now)
}

func (u *upstream) record(at time.Time, value float64) {
	u.stable.Record(at, value)
	u.panic.Record(at, value)
}

func newUpstream(spec scale.Spec, ready int) *upstream {
	u := &upstream{
		stable: newBuckets(spec.StableWindow, spec.Aggregation),
		panic:  newBuckets(spec.PanicWindow, spec.Aggregation),
		ready:  ready,
	}
	u.scaler = scaling.New(attribute.NewSet(), noop.NewMeterProvider(), "default", "hello", u, u, decider(spec))
	return u
}

func decider(spec scale.Spec) *scaling.DeciderSpec {
	return &scaling.DeciderSpec{
		MaxScaleUpRate:      spec.MaxScaleUpRate,
		MaxScaleDownRate:    spec.MaxScaleDownRate,
		ScalingMetric:       string(spec.Metric),
		TargetValue:         spec.Target,
		TotalValue:          spec.Total,
		TargetBurstCapacity: spec.TargetBurstCapacity,
		PanicThreshold:      spec.PanicThreshold,
		StableWindow:        spec.StableWindow,
		ScaleDownDelay:      spec.ScaleDownDelay,
		InitialScale:        spec.Initial,
		Reachable:           spec.Reachable,
		ActivationScale:     spec.ActivationScale,
	}
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

func randomSpec(r *rand.Rand) scale.Spec {
	total := pick(r, 1, 2, 10, 100, r.Float64()*50+0.1)
	stable := time.Duration(pick(r, 6, 10, 30, 60, 6+r.IntN(60))) * time.Second
	return scale.Spec{
		Class:               scale.KPA,
		Metric:              pick(r, scale.Concurrency, scale.RPS),
		Aggregation:         pick(r, scale.Linear, scale.WeightedExponential),
		Total:               total,
		Target:              max(0.01, total*pick(r, 0.7, 1, 0.01+r.Float64()*0.99)),
		StableWindow:        stable,
		PanicWindow:         max(time.Second, (stable * time.Duration(1+r.IntN(100)) / 100).Round(time.Second)),
		PanicThreshold:      pick(r, 2, 1.1, 10, 1.1+r.Float64()*5),
		MaxScaleUpRate:      pick(r, 1000, 1.1, 2, 1.01+r.Float64()*9),
		MaxScaleDownRate:    pick(r, 2, 1.1, 10, 1.01+r.Float64()*9),
		TargetBurstCapacity: pick(r, 211, 0, -1, r.Float64()*300),
		ScaleDownDelay:      pick(r, 0, 0, time.Duration(r.IntN(90))*time.Second),
		ActivationScale:     pick(r, 0, 0, 1, 2, int32(r.IntN(9))),
		Initial:             1,
		ScaleToZero:         true,
		Reachable:           r.IntN(5) > 0,
	}
}

// respecified changes all that upstream too takes over while it runs: windows and the delay start anew
// there.
func respecified(r *rand.Rand, spec scale.Spec) scale.Spec {
	next := randomSpec(r)
	spec.Target, spec.Total, spec.PanicThreshold = next.Target, next.Total, next.PanicThreshold
	spec.MaxScaleUpRate, spec.MaxScaleDownRate = next.MaxScaleUpRate, next.MaxScaleDownRate
	spec.TargetBurstCapacity, spec.ActivationScale, spec.Reachable = next.TargetBurstCapacity, next.ActivationScale, next.Reachable
	return spec
}

// A tally counts what the histories came across.
type tally map[string]int

func (t tally) count(spec scale.Spec, w scale.Wish) {
	t[string(w.Reason)]++
	t[string(spec.Aggregation)]++
	t[string(spec.Metric)]++
	if w.Panicking {
		t["panicking"]++
	}
	if w.ExcessBurst < 0 {
		t["buffering"]++
	}
	if !spec.Reachable {
		t["unreachable"]++
	}
}

// TestWishesAreUpstreams compares wish by wish on random histories of load, time and readiness, and
// requires that they came across everything that decides.
func TestWishesAreUpstreams(t *testing.T) {
	n := histories(t)
	workers := uint64(runtime.GOMAXPROCS(0))
	tallies := make([]tally, workers)
	t.Run("histories", func(t *testing.T) {
		for worker := range workers {
			tallies[worker] = tally{}
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for seed := worker; seed < n && !t.Failed(); seed += workers {
					synctest.Test(t, func(t *testing.T) { compare(t, seed, tallies[worker]) })
				}
			})
		}
	})
	all := tally{}
	for _, one := range tallies {
		for what, times := range one {
			all[what] += times
		}
	}
	t.Logf("%d histories of %d wishes alike: %v", n, steps, all)
	for _, what := range []string{
		string(scale.Linear), string(scale.WeightedExponential), string(scale.Concurrency), string(scale.RPS), "panicking", "buffering", "unreachable",
		string(scale.Demand), string(scale.NoTraffic), string(scale.Panicking), string(scale.PanicHeld), string(scale.LimitedUp), string(scale.LimitedDown),
		string(scale.ActivationScaled), string(scale.ScaleDownDelayed),
	} {
		if all[what] == 0 {
			t.Errorf("no history came across %s", what)
		}
	}
}

func compare(t *testing.T, seed uint64, seen tally) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	spec := randomSpec(r)
	now := time.Now()
	ready := pick(r, 0, 1, r.IntN(20))
	theirs := newUpstream(spec, ready)
	ours := scale.NewState(spec, int32(ready), now)
	load := r.Float64() * 100
	for step := range steps {
		now = now.Add(pick(r, 2*time.Second, time.Duration(r.IntN(4000))*time.Millisecond, time.Duration(r.IntN(100))*time.Second))
		load = max(0, pick(r, 0, load, load*3, load/3, load+r.NormFloat64()*20))
		for second := range r.IntN(12) {
			at := now.Add(-time.Duration(second) * time.Second)
			value := load * r.Float64()
			theirs.record(at, value)
			ours.Record(at, value)
		}
		want := theirs.scaler.Scale(zap.NewNop().Sugar(), now)
		got := ours.Wish(now, theirs.ready, nil)
		if !want.ScaleValid || want.DesiredPodCount != got.Count || want.ExcessBurstCapacity != got.ExcessBurst {
			t.Errorf("history %d, step %d: upstream %+v, ebb %+v\nspec %+v", seed, step, want, got, spec)
			return
		}
		seen.count(spec, got)
		theirs.ready = pick(r, int(min(got.Count, 500)), theirs.ready, r.IntN(20))
		if r.IntN(40) == 0 {
			spec = respecified(r, spec)
			theirs.scaler.Update(decider(spec))
			ours.Update(spec)
		}
	}
}

// TestAnEdgeWishesNoMore compares an evaluation brought forward with upstream's after the same
// bucket was written, and requires the window to be as before.
func TestAnEdgeWishesNoMore(t *testing.T) {
	for seed := range histories(t) / 4 {
		r := rand.New(rand.NewPCG(seed, 11))
		spec := randomSpec(r)
		spec.ScaleDownDelay = 0
		theirs, ours := newUpstream(spec, 0), scale.NewState(spec, 0, time.Now())
		now := time.Now().Truncate(time.Second)
		for range r.IntN(40) {
			now = now.Add(time.Duration(1+r.IntN(3)) * time.Second)
			value := r.Float64() * 50
			theirs.record(now, value)
			ours.Record(now, value)
		}
		now = now.Add(time.Second)
		open := float64(1 + r.IntN(200))
		got := ours.Wish(now, 0, &open)
		again := ours.Wish(now, 0, &open)
		theirs.record(now, open)
		want := theirs.scaler.Scale(zap.NewNop().Sugar(), now)
		if got.Count != want.DesiredPodCount || again.Count != got.Count {
			t.Fatalf("history %d: upstream %d, ebb %d, then %d", seed, want.DesiredPodCount, got.Count, again.Count)
		}
	}
}

// TestWindowsAreUpstreams compares the averages themselves.
func TestWindowsAreUpstreams(t *testing.T) {
	for seed := range histories(t) {
		r := rand.New(rand.NewPCG(seed, 3))
		how := pick(r, scale.Linear, scale.WeightedExponential)
		length := time.Duration(1+r.IntN(90)) * time.Second
		theirs, ours := newBuckets(length, how), scale.NewWindow(length, how)
		now := time.Unix(1_800_000_000+int64(r.IntN(1000)), 0)
		for step := range steps {
			now = now.Add(time.Duration(r.IntN(int(length) * 2 / (1 + r.IntN(8)))))
			at := now.Add(2*time.Second - time.Duration(r.IntN(int(length)))) // some are ahead of the clock
			value := r.Float64() * 1000
			theirs.Record(at, value)
			ours.Record(at, value)
			if want, got := theirs.WindowAverage(now), ours.Average(now); differ(want, got) {
				t.Fatalf("%s over %s, history %d, step %d: upstream %v, ebb %v", how, length, seed, step, want, got)
			}
			if want, got := theirs.IsEmpty(now), ours.Empty(now); want != got {
				t.Fatalf("history %d, step %d: upstream empty %v, ebb %v", seed, step, want, got)
			}
		}
	}
}

// differ allows for the last of the six decimals upstream rounds to.
func differ(a, b float64) bool {
	d := a - b
	return d > 1.5e-6 || d < -1.5e-6
}

package series_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"ebb.dev/ebb/internal/platform/telemetry/series"
)

var (
	depth    = &series.Instrument{Name: "depth", Unit: "{request}"}
	active   = &series.Instrument{Name: "active", Kind: series.UpDown}
	starts   = &series.Instrument{Name: "starts", Kind: series.Counter}
	duration = &series.Instrument{Name: "duration", Unit: "s"}
)

func of(name string) attribute.Set { return attribute.NewSet(attribute.String("name", name)) }

func TestGroupGathersByInstrument(t *testing.T) {
	h := series.NewHistogram(series.Seconds(0.1, 1))
	for _, d := range []time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second} {
		h.Observe(int64(d))
	}
	var g series.Group
	g.Add("one", func(b *series.Batch) {
		for _, name := range []string{"a", "b"} {
			b.Int(depth, of(name), 3)
			b.Int(active, of(name), -1)
			b.Int(starts, of(name), 7)
		}
		b.Histogram(duration, of("a"), h)
	})
	g.Add("silent", func(*series.Batch) {})
	scopes, err := g.Produce(t.Context())
	if err != nil || len(scopes) != 1 || scopes[0].Scope.Name != "one" {
		t.Fatalf("%d scopes, %v: %+v", len(scopes), err, scopes)
	}
	got := map[string]metricdata.Metrics{}
	for _, m := range scopes[0].Metrics {
		got[m.Name] = m
	}
	if points := got["depth"].Data.(metricdata.Gauge[int64]).DataPoints; len(points) != 2 || points[1].Value != 3 {
		t.Errorf("gauge %+v", points)
	}
	if s := got["active"].Data.(metricdata.Sum[int64]); s.IsMonotonic || s.DataPoints[0].Value != -1 || s.DataPoints[0].StartTime.IsZero() {
		t.Errorf("up and down %+v", s)
	}
	if s := got["starts"].Data.(metricdata.Sum[int64]); !s.IsMonotonic || s.DataPoints[0].Value != 7 {
		t.Errorf("counter %+v", s)
	}
	p := got["duration"].Data.(metricdata.Histogram[float64]).DataPoints[0]
	if diff := cmp.Diff([]uint64{2, 1, 1}, p.BucketCounts); diff != "" || p.Count != 4 || p.Sum != 4.101 {
		t.Errorf("histogram %+v; counts (-want +got):\n%s", p, diff)
	}
}

func TestHistogramLosesNothing(t *testing.T) {
	h := series.NewHistogram(series.Whole(10, 100))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range int64(1000) {
				h.Observe(i % 200)
			}
		})
	}
	wg.Wait()
	var g series.Group
	g.Add("x", func(b *series.Batch) { b.Histogram(duration, of("x"), h) })
	scopes, _ := g.Produce(t.Context())
	p := scopes[0].Metrics[0].Data.(metricdata.Histogram[float64]).DataPoints[0]
	if p.Count != 8000 || p.BucketCounts[0] != 8*5*11 || p.Sum != 8*5*19900 {
		t.Errorf("%+v", p)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := series.NewHistogram(series.Seconds(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	for b.Loop() {
		h.Observe(int64(3 * time.Millisecond))
	}
}

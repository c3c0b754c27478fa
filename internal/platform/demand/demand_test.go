package demand_test

import (
	"math"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/platform/demand"
)

var (
	rev = types.NamespacedName{Namespace: "default", Name: "hello-00001"}
	t0  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

func TestMeterWeighsRequestsByTheirTime(t *testing.T) {
	type event struct {
		ms  int
		out bool
	}
	cases := map[string]struct {
		events []event
		want   demand.Sample
	}{
		"one request for half of the period": {
			events: []event{{0, false}, {500, true}},
			want:   demand.Sample{Concurrency: 0.5, Requests: 1, Elapsed: time.Second},
		},
		"two halves make one": {
			events: []event{{0, false}, {500, true}, {500, false}},
			want:   demand.Sample{Concurrency: 1, Requests: 2, InFlight: 1, Elapsed: time.Second},
		},
		"the period begins with the first request": {
			events: []event{{600, false}},
			want:   demand.Sample{Concurrency: 1, Requests: 1, InFlight: 1, Elapsed: 400 * time.Millisecond},
		},
		"events told out of order": {
			events: []event{{0, false}, {400, true}, {200, false}, {900, true}},
			want:   demand.Sample{Concurrency: 1.1, Requests: 2, Elapsed: time.Second},
		},
		"no request": {want: demand.Sample{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := demand.NewBook().Meter(rev)
			for _, e := range c.events {
				if e.out {
					m.Out(at(e.ms))
				} else {
					m.In(at(e.ms))
				}
			}
			got := m.Take(at(1000))
			if math.Abs(got.Concurrency-c.want.Concurrency) > 1e-9 {
				t.Errorf("Concurrency = %v, want %v", got.Concurrency, c.want.Concurrency)
			}
			got.Concurrency = c.want.Concurrency
			if got != c.want {
				t.Errorf("Take() = %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestMeterCarriesRequestsOverPeriods(t *testing.T) {
	m := demand.NewBook().Meter(rev)
	m.In(at(0))
	m.In(at(0))
	m.Take(at(1000))
	m.Out(at(1250))
	got := m.Take(at(2000))
	want := demand.Sample{Concurrency: 1.25, InFlight: 1, Elapsed: time.Second}
	if got != want {
		t.Errorf("Take() = %+v, want %+v", got, want)
	}
}

func TestMeterTellsTheFirstRequestAfterQuiet(t *testing.T) {
	m := demand.NewBook().Meter(rev)
	if !m.In(at(0)) {
		t.Error("the very first request is not first")
	}
	if m.In(at(1)) {
		t.Error("the second request is first")
	}
	if m.Rest() {
		t.Error("rested with requests in flight")
	}
	m.Out(at(2))
	m.Out(at(3))
	if m.Rest() {
		t.Error("rested with requests that no sample has taken")
	}
	m.Take(at(1000))
	if !m.Rest() {
		t.Error("did not rest in quiet")
	}
	if !m.In(at(5000)) {
		t.Error("the request after quiet is not first")
	}
	if got := m.Take(at(6000)); got.Elapsed != time.Second || got.Concurrency != 1 {
		t.Errorf("the quiet time counts: %+v", got)
	}
}

func TestMeterLosesNothingUnderLoad(t *testing.T) {
	book := demand.NewBook()
	const workers, each = 8, 2000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				m := book.Meter(rev)
				m.In(time.Now())
				m.Out(time.Now())
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var requests int64
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		requests += book.Meter(rev).Take(time.Now()).Requests
	}
	requests += book.Meter(rev).Take(time.Now()).Requests
	if requests != workers*each {
		t.Errorf("counted %d requests, want %d", requests, workers*each)
	}
	if n := book.Meter(rev).InFlight(); n != 0 {
		t.Errorf("InFlight() = %d, want 0", n)
	}
}

func TestBookForgets(t *testing.T) {
	book := demand.NewBook()
	old := book.Meter(rev)
	if book.Meter(rev) != old {
		t.Error("two meters for one revision")
	}
	book.Forget(rev)
	if book.Meter(rev) == old {
		t.Error("the meter is still in the book")
	}
}

func BenchmarkInOut(b *testing.B) {
	m := demand.NewBook().Meter(rev)
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.In(now)
			m.Out(now)
		}
	})
}

package metricsapi

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// busy is a node whose one container has used a steady share of a core since started.
type busy struct {
	started  time.Time
	milli    uint64
	err      error
	readings int
}

func (b *busy) Summary(context.Context) (*stats.Summary, error) {
	b.readings++
	if b.err != nil {
		return nil, b.err
	}
	now := time.Now()
	used := uint64(now.Sub(b.started)) / 1000 * b.milli
	memory := uint64(64 << 20)
	cpu := &stats.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &used}
	mem := &stats.MemoryStats{Time: metav1.NewTime(now), WorkingSetBytes: &memory}
	return &stats.Summary{
		Node: stats.NodeStats{NodeName: "here", StartTime: metav1.NewTime(b.started), CPU: cpu, Memory: mem},
		Pods: []stats.PodStats{{
			PodRef:     stats.PodReference{Name: "p", Namespace: "default", UID: "uid-p"},
			Containers: []stats.ContainerStats{{Name: "c", StartTime: metav1.NewTime(b.started), CPU: cpu, Memory: mem}, {Name: "starting"}},
		}},
	}, nil
}

func newTestMeter(sources ...Source) *Meter {
	return NewMeter(sources, slog.New(slog.DiscardHandler))
}

func TestMeterAveragesOverTheWindow(t *testing.T) {
	cases := map[string]struct {
		wait []time.Duration // between requests
		want Usage           // of the last
	}{
		"the first request takes a short window":               {nil, Usage{Window: shortWindow}},
		"one soon after looks back to the first reading":       {[]time.Duration{5 * time.Second}, Usage{Window: 5500 * time.Millisecond}},
		"a steady asker gets at least the window":              {[]time.Duration{15 * time.Second, 15 * time.Second}, Usage{Window: 15 * time.Second}},
		"a fast asker gets the window too":                     {[]time.Duration{4 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second}, Usage{Window: 12 * time.Second}},
		"after a long silence it starts again":                 {[]time.Duration{10 * time.Minute}, Usage{Window: shortWindow}},
		"one at once is answered with what the last one found": {[]time.Duration{100 * time.Millisecond}, Usage{Window: shortWindow}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newTestMeter(&busy{started: time.Now().Add(-time.Hour), milli: 250})
				got, err := m.Report(t.Context())
				for _, wait := range c.wait {
					time.Sleep(wait) // the bubble's clock
					got, err = m.Report(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
				u := got.Pods["uid-p"]["c"]
				if u.Window != c.want.Window || u.CPUNanoCores != 250e6 || u.MemoryBytes != 64<<20 {
					t.Errorf("use is %+v, want a window of %v", u, c.want.Window)
				}
				if _, ok := got.Pods["uid-p"]["starting"]; ok {
					t.Error("a container without figures was reported")
				}
			})
		})
	}
}

func TestMeterMeasuresWhatStartedMeanwhileFromItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &busy{started: time.Now().Add(-time.Hour), milli: 100}
		m := newTestMeter(source)
		if _, err := m.Report(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		source.started, source.milli = time.Now(), 500 // restarted: its counter began again
		time.Sleep(2 * time.Second)
		got, err := m.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := Usage{Time: time.Now(), Window: 2 * time.Second, CPUNanoCores: 500e6, MemoryBytes: 64 << 20}
		if diff := cmp.Diff(want, got.Pods["uid-p"]["c"]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMeterReadsNothingUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &busy{started: time.Now().Add(-time.Hour), milli: 100}
		m := newTestMeter(source)
		time.Sleep(time.Hour)
		if source.readings != 0 {
			t.Errorf("%d readings before the first request", source.readings)
		}
		for range 100 {
			if _, err := m.Report(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if source.readings != 2 {
			t.Errorf("%d readings for requests at once", source.readings)
		}
	})
}

func TestMeterFailsOnlyWithAllSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := &busy{err: errors.New("gone")}
		if _, err := newTestMeter(gone).Report(t.Context()); !errors.Is(err, gone.err) {
			t.Errorf("the only source is gone: %v", err)
		}
		got, err := newTestMeter(gone, &busy{started: time.Now().Add(-time.Hour), milli: 1}).Report(t.Context())
		if err != nil || len(got.Nodes) != 1 {
			t.Errorf("one of two sources is gone: %v, %v", got, err)
		}
	})
}

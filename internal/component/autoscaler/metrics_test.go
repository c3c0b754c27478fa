package autoscaler_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/domain/scale"
	"ebb.dev/ebb/internal/platform/demand"
	"ebb.dev/ebb/internal/platform/telemetry/series"
	"ebb.dev/ebb/internal/platform/telemetry/series/seriestest"
)

func TestMetricsCarryKnativesNames(t *testing.T) {
	c := newCluster()
	rps := types.NamespacedName{Namespace: "default", Name: "rps-00001"}
	c.create(hello, 2)
	c.create(rps, 0)
	var numbers series.Group
	a := autoscaler.New(autoscaler.Config{
		Fleet: c, Demand: demand.NewBook(), Scaler: c, Log: slog.New(slog.DiscardHandler), Numbers: &numbers,
	})
	told := make(chan struct{}, 2)
	a.Subscribe(func(types.NamespacedName) { told <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.SetRevision(hello, kpa(func(s *scale.Spec) { s.Service, s.Configuration = "hello", "hello" }))
	a.SetRevision(rps, kpa(func(s *scale.Spec) { s.Metric, s.Target = scale.RPS, 150 }))
	for range 2 {
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatal("no decision")
		}
	}
	got := seriestest.Read(t, &numbers)
	const names = "{k8s.namespace.name=default,kn.configuration.name=hello,kn.revision.name=hello-00001,kn.service.name=hello}"
	const others = "{k8s.namespace.name=default,kn.configuration.name=,kn.revision.name=rps-00001,kn.service.name=}"
	want := map[string]float64{}
	for name, value := range map[string]float64{
		"pods.desired": 2, "pods.requested": 2, "pods.count": 2, "pods.not_ready.count": 3, "pods.pending.count": 2,
		"pods.terminating.count": 1, "panic.mode": 1, "concurrency.stable": 0, "concurrency.panic": 0, "concurrency.target": 70,
	} {
		want["kn.revision."+name+names] = value
	}
	want["kn.revision.rps.target"+others] = 150
	want["kn.revision.pods.desired"+others] = 0
	for name := range got {
		if _, checked := want[name]; !checked {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	a.RemoveRevision(hello)
	if _, there := seriestest.Read(t, &numbers)["kn.revision.pods.desired"+names]; there {
		t.Error("a removed revision still has metrics")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

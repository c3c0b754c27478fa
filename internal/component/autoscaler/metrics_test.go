package autoscaler_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/autoscaler"
	"ebb.dev/ebb/internal/platform/demand"
)

func TestMetricsCarryKnativesNames(t *testing.T) {
	c, registry := newCluster(), prometheus.NewPedanticRegistry()
	c.create(hello, 2)
	a := autoscaler.New(autoscaler.Config{
		Fleet: c, Demand: demand.NewBook(), Scaler: c, Log: slog.New(slog.DiscardHandler), Registerer: registry,
	})
	told := make(chan struct{}, 1)
	a.Subscribe(func(types.NamespacedName) { told <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.SetRevision(hello, kpa())
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("no decision")
	}
	want := `
# HELP kn_revision_pods_desired Number of instances wanted.
# TYPE kn_revision_pods_desired gauge
kn_revision_pods_desired{k8s_namespace_name="default",kn_revision_name="hello-00001"} 2
# HELP kn_revision_panic_mode 1 while the wanted number may not shrink after a burst.
# TYPE kn_revision_panic_mode gauge
kn_revision_panic_mode{k8s_namespace_name="default",kn_revision_name="hello-00001"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kn_revision_pods_desired", "kn_revision_panic_mode"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

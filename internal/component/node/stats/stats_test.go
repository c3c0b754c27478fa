package stats_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/component/node/stats"
)

// one is a pod whose container has used more CPU each time.
type one struct{ cpu uint64 }

func (*one) Running() []stats.Pod {
	return []stats.Pod{{Namespace: "ns", Name: "p", UID: "u"}, {Namespace: "ns", Name: "gone", UID: "gone"}}
}

func (o *one) Measure(_ context.Context, uid types.UID) (runtime.SandboxStats, error) {
	if uid == "gone" {
		return runtime.SandboxStats{}, runtime.ErrNotFound
	}
	o.cpu += 2e9
	return runtime.SandboxStats{
		Time: time.Unix(int64(o.cpu/1e9), 0), Network: runtime.NetworkStats{RxBytes: 7},
		Containers: map[string]runtime.ContainerStats{"c": {CPUNanos: o.cpu, WorkingSet: 1 << 20, Started: time.Unix(1, 0)}},
	}, nil
}

func TestSummary(t *testing.T) {
	c := &stats.Collector{Node: "here", DataDir: t.TempDir(), Source: &one{}}
	first, err := c.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Pods) != 1 || *first.Pods[0].Containers[0].Memory.WorkingSetBytes != 1<<20 || *first.Pods[0].Network.RxBytes != 7 {
		t.Errorf("pods = %+v", first.Pods)
	}
	// Two seconds of CPU in two seconds is one core.
	if got := *second.Pods[0].Containers[0].CPU.UsageNanoCores; got != 1e9 {
		t.Errorf("%d nano-cores", got)
	}
	if !first.Node.StartTime.Equal(&second.Node.StartTime) || first.Node.StartTime.IsZero() || *first.Node.CPU.UsageCoreNanoSeconds == 0 {
		t.Errorf("node = %+v", first.Node)
	}
}

func TestUsage(t *testing.T) {
	w := httptest.NewRecorder()
	stats.Usage{Collector: &stats.Collector{Node: "here", DataDir: t.TempDir(), Source: &one{}}}.ServeHTTP(w, httptest.NewRequest("GET", "/metrics/resource", nil))
	for _, want := range []string{
		"container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 2 2000\n",
		"pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 1.048576e+06 2000\n",
		"# TYPE node_cpu_usage_seconds_total counter\n", "resource_scrape_error 0\n",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q is missing in\n%s", want, w.Body.String())
		}
	}
}

package container_test

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/adapter/runtime/runtimetest"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// connectTime is how long one try to connect may take.
const connectTime = 20 * time.Millisecond

// parkTime is long enough for a sandbox to be parked again.
const parkTime = 400 * time.Millisecond

// openNetworked starts a Runtime with real pod networks and a dialler from the node.
func openNetworked(b *testing.B, subnet byte, park int) (*container.Runtime, runtimetest.Dialer) {
	b.Helper()
	needRoot(b)
	w := netnstest.New(b)
	c := w.Config(int(subnet))
	pods, err := network.New(w.Open(b, c), c.PodCIDR, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	cfg := container.Config{StateDir: b.TempDir(), CgroupRoot: runtimetest.CgroupRoot(), Pods: pods, Park: park}
	r, err := container.New(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
		if err := container.CleanUp(context.WithoutCancel(b.Context()), cfg); err != nil {
			b.Error(err)
		}
	})
	return r, func(ctx context.Context, sb runtime.Sandbox, port uint16) (net.Conn, error) {
		return r.Dial(ctx, sb.ID, port)
	}
}

// BenchmarkStart starts one pod at a time, each with a network and limits joined.
func BenchmarkStart(b *testing.B) {
	for name, park := range map[string]int{"cold": 0, "parked": 2} {
		b.Run(name, func(b *testing.B) {
			r, dial := openNetworked(b, byte(40+park), park)
			layer := runtimetest.Layer(b)
			var starts []runtimetest.Start
			for b.Loop() {
				b.StopTimer()
				wait(b, parkTime)
				b.StartTimer()
				id, s, err := runtimetest.Measure(b.Context(), r, runtimetest.Pod{Layer: layer, Dial: dial})
				if err != nil {
					b.Fatal(err)
				}
				starts = append(starts, s)
				b.StopTimer()
				if err := r.StopSandbox(b.Context(), id); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			report(b, starts)
		})
	}
}

// BenchmarkBare starts the same program as a plain process: what no runtime can beat.
func BenchmarkBare(b *testing.B) {
	layer := runtimetest.Layer(b)
	var starts []runtimetest.Start
	for b.Loop() {
		b.StopTimer()
		wait(b, parkTime)
		b.StartTimer()
		begin := time.Now()
		cmd := exec.CommandContext(b.Context(), filepath.Join(layer, "pod"), "serve", "127.0.0.1:18099")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		err := runtimetest.UntilAnswer(b.Context(), func() (net.Conn, error) {
			return net.DialTimeout("tcp", "127.0.0.1:18099", connectTime)
		})
		if err != nil {
			b.Fatal(err)
		}
		starts = append(starts, runtimetest.Start{Answer: time.Since(begin)})
		if err := cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
	report(b, starts)
}

// BenchmarkBurst starts 50 pods at once.
func BenchmarkBurst(b *testing.B) {
	r, dial := openNetworked(b, 44, 0)
	layer := runtimetest.Layer(b)
	for b.Loop() {
		starts, wall, err := runtimetest.Burst(b.Context(), r, runtimetest.Pod{Layer: layer, Dial: dial}, 50)
		if err != nil {
			b.Fatal(err)
		}
		report(b, starts)
		b.ReportMetric(float64(wall.Microseconds())/1000, "wall-ms")
	}
}

func wait(b *testing.B, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-b.Context().Done():
	case <-timer.C:
	}
}

func report(b *testing.B, starts []runtimetest.Start) {
	b.ReportMetric(0, "ns/op")
	ms := func(of func(runtimetest.Start) time.Duration, part float64) float64 {
		var all []time.Duration
		for _, s := range starts {
			all = append(all, of(s))
		}
		slices.Sort(all)
		return float64(all[int(part*float64(len(all)-1))].Microseconds()) / 1000
	}
	answer := func(s runtimetest.Start) time.Duration { return s.Answer }
	b.ReportMetric(ms(func(s runtimetest.Start) time.Duration { return s.Sandbox }, 0.5), "sandbox-p50-ms")
	b.ReportMetric(ms(func(s runtimetest.Start) time.Duration { return s.Started }, 0.5), "started-p50-ms")
	b.ReportMetric(ms(answer, 0.5), "answer-p50-ms")
	b.ReportMetric(ms(answer, 0.99), "answer-p99-ms")
	b.ReportMetric(ms(answer, 1), "answer-max-ms")
}

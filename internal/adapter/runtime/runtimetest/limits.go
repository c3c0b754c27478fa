package runtimetest

import (
	"bufio"
	"net/http"
	"os"
	"strings"
	"testing"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func runNetwork(t *testing.T, s Subject) {
	b := newBench(t, s)
	c := b.start(b.spec("serve", ":8000"))
	var answer string
	eventually(t, "an answer", func() bool {
		conn, err := b.rt.Dial(t.Context(), b.sandbox, 8000)
		if err != nil {
			return false
		}
		defer conn.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://pod/", nil)
		if err != nil || req.Write(conn) != nil {
			return false
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		answer = resp.Status
		return true
	})
	if answer != "200 OK" {
		t.Errorf("got %q", answer)
	}
	if conn, err := b.rt.Dial(t.Context(), b.sandbox, 8001); err == nil {
		conn.Close()
		t.Error("connected to a port nobody listens on")
	}
	if got, _ := b.exec(c.ID, "list", "/sys/class/net"); !s.OwnKernel && (strings.Contains(got, "ens") || !strings.Contains(got, "/lo ")) {
		t.Errorf("interfaces: %q", got)
	}
	stats, err := b.rt.Stats(t.Context(), b.sandbox)
	if err != nil {
		t.Fatal(err)
	}
	one := stats.Containers[c.Name]
	if one.Started.IsZero() || s.MemoryLimits && (one.MemoryBytes == 0 || one.CPUNanos == 0 || one.ProcessCount == 0 || one.WorkingSet > one.MemoryBytes) {
		t.Errorf("measured %+v", one)
	}
}

func runLimits(t *testing.T, s Subject) {
	t.Run("memory", func(t *testing.T) {
		b := newBench(t, s)
		spec := b.spec("eat", "200")
		spec.Resources.MemoryBytes = 48 << 20
		b.start(spec)
		if end := b.ends.wait(t, spec.ID); !end.OOMKilled || end.ExitCode != 137 {
			t.Errorf("got %+v", end)
		}
		spec = b.spec("eat", "8")
		spec.Resources.MemoryBytes = 48 << 20
		b.start(spec)
		eventually(t, "its meal", func() bool { return logText(t, spec.LogPath) == "ate 8\n" })
	})
	t.Run("processes", func(t *testing.T) {
		b := newBench(t, s)
		spec := b.spec("crowd", "40")
		spec.Resources.PIDs = 20
		b.start(spec)
		if end := b.ends.wait(t, spec.ID); end.ExitCode == 0 {
			t.Errorf("got %+v", end)
		}
	})
	t.Run("the container sees them", func(t *testing.T) { seeLimits(t, newBench(t, s)) })
	t.Run("an own process that was killed for memory is no end", func(t *testing.T) {
		b := newBench(t, s)
		spec := b.spec("sleep")
		spec.Resources.MemoryBytes = 48 << 20
		c := b.start(spec)
		if _, code := b.exec(c.ID, "eat", "200"); code != 137 {
			t.Errorf("the eater ended with %d", code)
		}
		if got := len(b.ends.of(c.ID)); got != 0 {
			t.Error("the container ended")
		}
		stats, err := b.rt.Stats(t.Context(), b.sandbox)
		if err != nil || stats.Containers[c.Name].OOMKillEvents == 0 {
			t.Errorf("measured %+v, %v", stats, err)
		}
	})
}

func limitSandbox(t *testing.T, s Subject) {
	limit, meal := int64(48<<20), "200"
	if s.OwnKernel {
		limit, meal = 256<<20, "600" // the kernel wants some, too
	}
	b := newBench(t, s, func(s *runtime.SandboxSpec) { s.Resources.MemoryBytes = limit })
	spec := b.spec("eat", meal)
	b.start(spec)
	if end := b.ends.wait(t, spec.ID); !end.OOMKilled || end.ExitCode != 137 {
		t.Errorf("got %+v", end)
	}
	if got := b.say("id"); got == "" {
		t.Error("nothing starts in it any more")
	}
}

// seeLimits reads what Kubernetes conformance reads.
func seeLimits(t *testing.T, b *bench) {
	limits := runtime.Resources{CPUShares: 512, CPUQuotaUS: 50_000, CPUPeriodUS: 100_000, MemoryBytes: 64<<20 + 123, PIDs: 500}
	show := func(file string) string {
		spec := b.spec("print", "/sys/fs/cgroup/"+file)
		spec.Resources = limits
		return strings.TrimSpace(b.output(spec))
	}
	want := map[string]string{
		"memory/memory.limit_in_bytes": "67108864", "cpu/cpu.shares": "512",
		"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000", "pids/pids.max": "500",
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		want = map[string]string{"memory.max": "67108864", "cpu.weight": "20", "cpu.max": "50000 100000", "pids.max": "500"}
	}
	for file, value := range want {
		if got := show(file); got != value {
			t.Errorf("%s is %q, not %q", file, got, value)
		}
	}
	spec := b.spec("write", "/sys/fs/cgroup/cgroup.procs", "1")
	b.start(spec)
	if end := b.ends.wait(t, spec.ID); end.ExitCode == 0 {
		t.Error("it may write to its control group")
	}
	for line := range strings.Lines(b.say("print", "/proc/self/cgroup")) {
		if path := line[strings.LastIndex(line, ":")+1:]; strings.Contains(path, b.sandbox) {
			t.Errorf("it sees its place on the node: %q", line)
		}
	}
}

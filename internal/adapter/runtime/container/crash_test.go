package container_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/runtimetest"
)

const (
	crashFolder = "EBB_TEST_CRASH_FOLDER"
	crashGroup  = "EBB_TEST_CRASH_GROUP"
)

// TestCrashing is the process that others kill: it starts a pod and waits for its end.
func TestCrashing(t *testing.T) {
	dir := os.Getenv(crashFolder)
	if dir == "" {
		t.Skip("it is run by other tests")
	}
	r, err := container.New(t.Context(), container.Config{StateDir: dir, CgroupRoot: os.Getenv(crashGroup), Park: 2})
	if err != nil {
		t.Fatal(err)
	}
	c := startPod(t, r, dir, "crashed")
	if _, err := fmt.Fprintln(os.Stdout, "started", c.PID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Hour)
}

// startPod starts a sandbox and a container in it that ticks.
func startPod(t *testing.T, r runtime.Runtime, dir, id string) runtime.Container {
	t.Helper()
	if _, err := r.StartSandbox(t.Context(), runtime.SandboxSpec{ID: id, Namespace: "default", Name: id, Hostname: id}); err != nil {
		t.Fatal(err)
	}
	c, err := r.StartContainer(t.Context(), runtime.ContainerSpec{
		ID: id + "-main", SandboxID: id, Name: "main", RootFS: []string{runtimetest.Layer(t)},
		Process: specs.Process{Args: []string{"/pod", "ticks"}, Cwd: "/"},
		LogPath: filepath.Join(dir, "logs", id, "0.log"), Resources: runtime.Resources{MemoryBytes: 64 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// crash runs TestCrashing in a process of its own until the pod runs, and kills it.
func crash(t *testing.T) (cfg container.Config, pid int) {
	t.Helper()
	needRoot(t)
	runtimetest.Layer(t)
	cfg = container.Config{StateDir: t.TempDir(), CgroupRoot: runtimetest.CgroupRoot()}
	t.Cleanup(func() {
		if err := container.CleanUp(context.WithoutCancel(t.Context()), cfg); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashing$")
	cmd.Env = append(os.Environ(), crashFolder+"="+cfg.StateDir, crashGroup+"="+cfg.CgroupRoot)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for s := bufio.NewScanner(out); s.Scan(); {
		text.WriteString(s.Text() + "\n")
		if n, ok := strings.CutPrefix(s.Text(), "started "); ok {
			if pid, err = strconv.Atoi(n); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if pid == 0 {
		t.Fatalf("the pod did not start: %s%s", text.String(), complaints.String())
	}
	until(t, "two sandboxes are parked", func() bool { return len(slots(t, cfg)) == 3 && len(guards(t, cfg)) == 3 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return cfg, pid
}

func slots(t *testing.T, cfg container.Config) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(cfg.StateDir, "pods/*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// guards are the processes in the guardians' control group.
func guards(t *testing.T, cfg container.Config) []string {
	t.Helper()
	var list []string
	procs, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if data, err := os.ReadFile(p); err == nil && strings.Contains(string(data), cfg.CgroupRoot+"/guards") {
			list = append(list, p)
		}
	}
	return list
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("waited in vain until %s", what)
}

func running(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.HasPrefix(string(data), "/pod\x00ticks")
}

func TestPodsOutliveAKilledProcess(t *testing.T) {
	cfg, pid := crash(t)
	if !running(pid) {
		t.Fatal("the container died with it")
	}
	r, err := container.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 || len(list[0].Containers) != 1 || list[0].Containers[0].PID != pid || !list[0].Containers[0].Running() {
		t.Fatalf("listed %+v, %v", list, err)
	}
	if n := len(slots(t, cfg)); n != 1 {
		t.Errorf("%d slots: parked sandboxes were left", n)
	}
	until(t, "parked guardians are gone", func() bool { return len(guards(t, cfg)) == 1 })
	if err := r.StopSandbox(t.Context(), "crashed"); err != nil {
		t.Fatal(err)
	}
	if end := <-r.Exits(); end.ID != "crashed-main" || end.ExitCode != 137 {
		t.Errorf("told %+v", end)
	}
	if running(pid) {
		t.Error("the container still runs")
	}
}

func TestCleanUpAfterAKilledProcess(t *testing.T) {
	cfg, pid := crash(t)
	for range 2 {
		if err := container.CleanUp(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if running(pid) || len(slots(t, cfg)) != 0 {
		t.Errorf("left: container %t, slots %v", running(pid), slots(t, cfg))
	}
	until(t, "init has taken the guardians' ends", func() bool { return len(guards(t, cfg)) == 0 })
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + cfg.CgroupRoot)
	if err != nil || len(left) > 0 {
		t.Errorf("control groups left: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(cfg.StateDir, "logs/crashed/0.log")); err != nil {
		t.Errorf("the log is gone: %v", err)
	}
}

func TestPodsOfAnotherBootHaveEnded(t *testing.T) {
	cfg, pid := crash(t)
	for _, slot := range slots(t, cfg) {
		file := filepath.Join(slot, "slot.json")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.ReplaceAll(data, bytes.TrimSpace(boot), []byte("another-boot"))
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := container.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if end := <-r.Exits(); end.ID != "crashed-main" || end.Running() || end.ExitCode != 137 {
		t.Errorf("told %+v", end)
	}
	if !running(pid) {
		t.Error("a process of this boot was taken for one of another and killed")
	}
	if err := r.StopSandbox(t.Context(), "crashed"); err != nil {
		t.Error(err)
	}
}

func TestContainersEndWithTheirGuardian(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	r := open(0)(t, dir)
	defer r.Close()
	c := startPod(t, r, dir, "guarded")
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "PPid:")
	guard, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if end := <-r.Exits(); end.ID != c.ID || end.ExitCode != 137 {
		t.Errorf("told %+v", end)
	}
	if running(c.PID) {
		t.Error("the container still runs, with nobody to write its log")
	}
	if _, err := r.Exec(t.Context(), c.ID, runtime.ExecSpec{Args: []string{"/pod", "id"}}); err == nil {
		t.Error("a command ran in it")
	}
	if err := r.StopSandbox(t.Context(), "guarded"); err != nil {
		t.Error(err)
	}
}

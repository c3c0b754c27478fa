package container_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/runtimetest"
)

// open starts a Runtime whose complaints, and those of its guardians, are shown if the test fails.
func open(park int) func(t testing.TB, dir string) runtime.Runtime {
	return func(t testing.TB, dir string) runtime.Runtime {
		t.Helper()
		var log bytes.Buffer
		cfg := container.Config{
			StateDir: dir, CgroupRoot: runtimetest.CgroupRoot(), Log: slog.New(slog.NewTextHandler(&log, nil)), Park: park,
		}
		r, err := container.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := container.CleanUp(context.WithoutCancel(t.Context()), cfg); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() {
			if !t.Failed() {
				return
			}
			t.Log(log.String())
			logs, err := filepath.Glob(filepath.Join(dir, "pods/*/guard.log"))
			if err != nil {
				t.Log(err)
			}
			for _, name := range logs {
				if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
					t.Logf("%s: %s", name, text)
				}
			}
		})
		return r
	}
}

func subject(park int) runtimetest.Subject {
	return runtimetest.Subject{
		Open: open(park), Processes: true, Survives: true, MemoryLimits: true, Seccomp: container.DefaultSeccomp,
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
}

func TestContainers(t *testing.T) {
	needRoot(t)
	runtimetest.Run(t, subject(0))
}

func TestRunc(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed")
	}
	s := subject(0)
	s.Handler = "runc"
	runtimetest.Run(t, s)
}

func TestGVisor(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("runsc"); err != nil {
		t.Skip("runsc is not installed")
	}
	s := subject(0)
	s.Handler, s.OwnKernel = "gvisor", true
	runtimetest.Run(t, s)
}

func TestParkedContainers(t *testing.T) {
	needRoot(t)
	runtimetest.Run(t, subject(2))
}

package runtimetest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func runSurvival(t *testing.T, s Subject) {
	b := newBench(t, s)
	stays, ends, told := b.spec("ticks"), b.spec("trap", "15"), b.spec("exit", "5")
	before := b.start(stays)
	ending := b.start(ends)
	b.start(told)
	b.ends.wait(t, told.ID)
	eventually(t, "the handler", func() bool { return logText(t, ends.LogPath) == "ready\n" })
	if err := b.rt.Close(); err != nil {
		t.Fatal(err)
	}
	<-b.ends.closed
	if err := syscall.Kill(ending.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	written := len(logLines(t, stays.LogPath))
	eventually(t, "ticks without a runtime", func() bool { return len(logLines(t, stays.LogPath)) > written+2 })
	eventually(t, "the end of the process", func() bool { return syscall.Kill(ending.PID, 0) != nil })

	b.open()
	t.Run("an end that was missed is told", func(t *testing.T) {
		if end := b.ends.wait(t, ends.ID); end.ExitCode != 42 || end.Finished.IsZero() || time.Since(end.Finished) > time.Minute {
			t.Errorf("got %+v", end)
		}
	})
	t.Run("what runs is listed unchanged", func(t *testing.T) {
		list, err := b.rt.List(t.Context())
		if err != nil || len(list) != 1 || len(list[0].Containers) != 3 {
			t.Fatalf("listed %+v, %v", list, err)
		}
		if list[0].Namespace != "default" || list[0].Annotations["kept"] != "yes" {
			t.Errorf("the sandbox is %+v", list[0])
		}
		for _, c := range list[0].Containers {
			if c.ID == stays.ID && (c.PID != before.PID || !c.Started.Equal(before.Started) || c.Annotations["mine"] != "1" || !c.Running()) {
				t.Errorf("before %+v, now %+v", before, c)
			}
		}
	})
	t.Run("it can be used", func(t *testing.T) {
		if got, code := b.exec(stays.ID, "id"); code != 0 || !strings.Contains(got, "tested") {
			t.Errorf("got %q, %d", got, code)
		}
		if got := b.say("id"); got == "" {
			t.Error("a further container said nothing")
		}
	})
	t.Run("it ends as ever", func(t *testing.T) {
		if err := b.rt.SignalContainer(t.Context(), stays.ID, int(syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		if end := b.ends.wait(t, stays.ID); end.ExitCode != 137 {
			t.Errorf("got %+v", end)
		}
	})
	if n := len(b.ends.of(told.ID)); n != 0 {
		t.Errorf("an end that was told before was told %d times again", n)
	}
}

// census counts what a runtime could leave behind on the node.
type census struct{ mounts, groups, processes, files int }

func count(t *testing.T) census {
	t.Helper()
	var c census
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	c.mounts = strings.Count(string(mounts), filepath.Dir(t.TempDir())) // others mount, too
	for _, pattern := range []string{"/sys/fs/cgroup/*/ebb-*", "/sys/fs/cgroup/*/ebb-*/*", "/sys/fs/cgroup/*/ebb-*/*/*", "/sys/fs/cgroup/ebb-*/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if st, err := os.Stat(f); err == nil && st.IsDir() && strings.Contains(f, ownName()) {
				c.groups++
			}
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if data, err := os.ReadFile(p); err == nil && strings.Contains(string(data), ownName()) {
			c.processes++
		}
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	c.files = len(files)
	return c
}

// CgroupRoot is the control group a Runtime under test must use: the suite counts what is in it.
func CgroupRoot() string { return ownName() }

func ownName() string { return "ebb-test" + strconv.Itoa(os.Getpid()) }

// runLeaks goes through a few lives and compares the node before and after.
func runLeaks(t *testing.T, s Subject) {
	life := func() {
		b := newBench(t, s)
		spec := b.spec("cat")
		spec.Stdin = true
		b.start(spec)
		b.exec(spec.ID, "id")
		b.say("fork", "go")
		broken := b.spec("sleep")
		broken.Process.Args = []string{"/nothing"}
		if _, err := b.rt.StartContainer(t.Context(), broken); err == nil {
			t.Error("it started")
		}
		if err := b.rt.SignalContainer(t.Context(), spec.ID, int(syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		b.ends.wait(t, spec.ID)
		if err := b.rt.RemoveContainer(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		b.stopAll()
		if err := b.rt.Close(); err != nil {
			t.Fatal(err)
		}
		b.rt = closed{}
		left, err := filepath.Glob(filepath.Join(b.dir, "pods/*"))
		if err != nil || len(left) > 0 {
			t.Errorf("folders left: %v, %v", left, err)
		}
	}
	life() // the first one may open what stays open, such as the poller
	before := count(t)
	for range 3 {
		life()
	}
	var after census
	t.Cleanup(func() { t.Logf("before %+v, after %+v", before, after) })
	eventually(t, "the node as before", func() bool {
		after = count(t)
		return after.mounts <= before.mounts && after.groups <= before.groups && after.processes <= before.processes && after.files <= before.files ||
			t.Failed()
	})
}

// closed stands in for a Runtime that a test closed itself.
type closed struct{ runtime.Runtime }

func (closed) List(context.Context) ([]runtime.Sandbox, error) { return nil, nil }
func (closed) Close() error                                    { return nil }

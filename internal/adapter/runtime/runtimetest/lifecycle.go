package runtimetest

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func runLifecycle(t *testing.T, s Subject) {
	t.Run("a container starts, is listed, is killed and told once", func(t *testing.T) {
		b := newBench(t, s)
		c := b.start(b.spec("sleep"))
		if !c.Running() || c.SandboxID != b.sandbox || c.Started.IsZero() || c.Annotations["mine"] != "1" {
			t.Errorf("started: %+v", c)
		}
		list, err := b.rt.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || len(list[0].Containers) != 1 || list[0].Containers[0].ID != c.ID || list[0].Annotations["kept"] != "yes" {
			t.Errorf("listed: %+v", list)
		}
		if err := b.rt.SignalContainer(t.Context(), c.ID, int(syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		end := b.ends.wait(t, c.ID)
		if end.Running() || end.ExitCode != 137 || end.Signal != 9 || end.OOMKilled || end.Finished.Before(end.Started) {
			t.Errorf("ended: %+v", end)
		}
		if err := b.rt.SignalContainer(t.Context(), c.ID, 15); !errors.Is(err, runtime.ErrNotRunning) {
			t.Errorf("signal after the end: %v", err)
		}
		for range 2 {
			if err := b.rt.RemoveContainer(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
		}
		if list, _ := b.rt.List(t.Context()); len(list) != 1 || len(list[0].Containers) != 0 {
			t.Errorf("listed after removal: %+v", list)
		}
		if n := len(b.ends.of(c.ID)); n != 1 {
			t.Errorf("the end was told %d times", n)
		}
	})
	t.Run("asking again changes nothing", func(t *testing.T) {
		b := newBench(t, s)
		spec := b.sandboxSpec()
		first, err := b.rt.StartSandbox(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		second, err := b.rt.StartSandbox(t.Context(), spec)
		if err != nil || !first.Created.Equal(second.Created) || first.IP != second.IP {
			t.Errorf("first %+v, again %+v, %v", first, second, err)
		}
		for range 2 {
			if err := b.rt.StopSandbox(t.Context(), spec.ID); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("what is not there is not found", func(t *testing.T) {
		b := newBench(t, s)
		spec := b.spec("sleep")
		spec.SandboxID = "nowhere"
		_, started := b.rt.StartContainer(t.Context(), spec)
		_, executed := b.rt.Exec(t.Context(), "nothing", runtime.ExecSpec{Args: []string{"/pod"}})
		_, dialled := b.rt.Dial(t.Context(), "nowhere", 80)
		_, measured := b.rt.Stats(t.Context(), "nowhere")
		for name, err := range map[string]error{
			"start": started, "exec": executed, "dial": dialled, "stats": measured,
			"signal": b.rt.SignalContainer(t.Context(), "nothing", 15),
			"attach": b.rt.Attach(t.Context(), "nothing", runtime.Streams{}),
		} {
			if !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := b.rt.StopSandbox(t.Context(), "nowhere"); err != nil {
			t.Error(err)
		}
		if err := b.rt.RemoveContainer(t.Context(), "nothing"); err != nil {
			t.Error(err)
		}
	})
	t.Run("stopping a sandbox ends and tells its containers", func(t *testing.T) {
		b := newBench(t, s)
		one, two := b.start(b.spec("sleep")), b.start(b.spec("sleep"))
		if err := b.rt.StopSandbox(t.Context(), b.sandbox); err != nil {
			t.Fatal(err)
		}
		b.ends.wait(t, one.ID)
		b.ends.wait(t, two.ID)
		if list, _ := b.rt.List(t.Context()); len(list) != 0 {
			t.Errorf("still listed: %+v", list)
		}
	})
	t.Run("many at once", func(t *testing.T) { runMany(t, s) })
}

// runMany starts 50 sandboxes with a container each and ends them.
func runMany(t *testing.T, s Subject) {
	b := newBench(t, s)
	const count = 50
	var wg sync.WaitGroup
	ids := make([]string, count)
	for i := range count {
		wg.Go(func() {
			spec := b.sandboxSpec()
			if _, err := b.rt.StartSandbox(t.Context(), spec); err != nil {
				t.Error(err)
				return
			}
			c := b.spec("sleep")
			c.SandboxID = spec.ID
			if _, err := b.rt.StartContainer(t.Context(), c); err != nil {
				t.Error(err)
			}
			ids[i] = c.ID
		})
	}
	wg.Wait()
	list, err := b.rt.List(t.Context())
	if err != nil || len(list) != count+1 {
		t.Fatalf("listed %d, %v", len(list), err)
	}
	for _, sb := range list {
		wg.Go(func() {
			if err := b.rt.StopSandbox(t.Context(), sb.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		b.ends.wait(t, id)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != count {
		t.Error("containers were mixed up")
	}
}

func runExits(t *testing.T, s Subject) {
	b := newBench(t, s)
	for name, row := range map[string]struct {
		args   []string
		signal syscall.Signal
		code   int
		died   int
	}{
		"success":               {args: []string{"exit", "0"}},
		"a code":                {args: []string{"exit", "3"}, code: 3},
		"the last code":         {args: []string{"exit", "255"}, code: 255},
		"a signal it handles":   {args: []string{"trap", "15"}, signal: syscall.SIGTERM, code: 42},
		"a signal of its own":   {args: []string{"trap", "10"}, signal: syscall.SIGUSR1, code: 42},
		"a signal nobody stops": {args: []string{"trap", "15"}, signal: syscall.SIGKILL, code: 137, died: 9},
	} {
		t.Run(name, func(t *testing.T) {
			spec := b.spec(row.args...)
			b.start(spec)
			if row.signal != 0 {
				eventually(t, "the handler", func() bool { return logText(t, spec.LogPath) == "ready\n" })
				if err := b.rt.SignalContainer(t.Context(), spec.ID, int(row.signal)); err != nil {
					t.Fatal(err)
				}
			}
			end := b.ends.wait(t, spec.ID)
			if end.ExitCode != row.code || end.Signal != row.died || end.OOMKilled {
				t.Errorf("got %+v", end)
			}
		})
	}
	for name, change := range map[string]func(*runtime.ContainerSpec){
		"a program that is not there":         func(c *runtime.ContainerSpec) { c.Process.Args = []string{"/nothing"} },
		"a program that is not in PATH":       func(c *runtime.ContainerSpec) { c.Process.Args = []string{"nothing"} },
		"a program that cannot be executed":   func(c *runtime.ContainerSpec) { c.Process.Args = []string{"/etc/seen"} },
		"a folder instead of a program":       func(c *runtime.ContainerSpec) { c.Process.Args = []string{"/etc"} },
		"no program":                          func(c *runtime.ContainerSpec) { c.Process.Args = nil },
		"an image without layers":             func(c *runtime.ContainerSpec) { c.RootFS = nil },
		"a working folder that is no folder":  func(c *runtime.ContainerSpec) { c.Process.Cwd = "/etc/seen" },
		"a layer that is not there":           func(c *runtime.ContainerSpec) { c.RootFS = []string{"/nowhere"} },
		"a container ID that leaves a folder": func(c *runtime.ContainerSpec) { c.ID = "../x" },
	} {
		t.Run(name+" is an error", func(t *testing.T) {
			spec := b.spec("sleep")
			change(&spec)
			if c, err := b.rt.StartContainer(t.Context(), spec); err == nil {
				t.Errorf("started: %+v", c)
			} else {
				t.Log(err)
			}
		})
	}
	t.Run("a program is found in PATH and its folder made", func(t *testing.T) {
		spec := b.spec()
		spec.Process.Args = []string{"pod", "id"}
		spec.Process.Cwd = "/made/for/me"
		if got := b.output(spec); got != "0 0 0 [] /made/for/me tested 1\n" {
			t.Errorf("got %q", got)
		}
	})
}

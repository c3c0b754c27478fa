package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// output is a writer that can be looked at while it is written to.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) has(text string) func() bool {
	return func() bool { return strings.Contains(o.String(), text) }
}

func runLogs(t *testing.T, s Subject) {
	b := newBench(t, s)
	t.Run("both streams are told apart", func(t *testing.T) {
		spec := b.spec("both")
		b.output(spec)
		got := map[string]string{}
		for _, l := range logLines(t, spec.LogPath) {
			got[l.stream] = l.tag + " " + l.text
		}
		if got["stdout"] != "F to stdout" || got["stderr"] != "F to stderr" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("lines show while the program runs", func(t *testing.T) {
		spec := b.spec("ticks")
		b.start(spec)
		eventually(t, "the third tick", func() bool { return len(logLines(t, spec.LogPath)) >= 3 })
		lines := logLines(t, spec.LogPath)
		if lines[2].text != "tick 2" || lines[2].stamp.Before(lines[0].stamp) || time.Since(lines[0].stamp) > time.Minute {
			t.Errorf("got %+v", lines[:3])
		}
	})
	t.Run("long lines come in parts", func(t *testing.T) {
		long := strings.Repeat("x", 100_000)
		spec := b.spec("echo", long)
		if got := b.output(spec); got != long+"\n" {
			t.Errorf("got %d bytes back", len(got))
		}
		lines := logLines(t, spec.LogPath)
		if len(lines) < 2 || lines[0].tag != "P" || lines[len(lines)-1].tag != "F" {
			t.Errorf("%d lines, first tagged %q", len(lines), lines[0].tag)
		}
	})
	t.Run("a line without an end is kept as a part", func(t *testing.T) {
		spec := b.spec("echo", "open", "-n")
		b.start(spec)
		if err := b.rt.SignalContainer(t.Context(), spec.ID, int(syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		b.ends.wait(t, spec.ID)
		for _, l := range logLines(t, spec.LogPath) { // empty if it was killed before it wrote
			if l.tag != "P" || l.text != "open" {
				t.Errorf("got %+v", l)
			}
		}
	})
	t.Run("stdin is at its end", func(t *testing.T) {
		if got := b.say("cat"); got != "end of input\n" {
			t.Errorf("got %q", got)
		}
	})
}

func runExec(t *testing.T, s Subject) {
	b := newBench(t, s)
	main := b.spec("sleep")
	main.Process.User.UID, main.Process.User.GID = 1000, 1000
	b.start(main)
	t.Run("it runs with the container's user, folder and environment", func(t *testing.T) {
		if got, code := b.exec(main.ID, "id"); code != 0 || !strings.HasPrefix(got, "1000 1000 1000 [] /work tested ") {
			t.Errorf("got %q, %d", got, code)
		}
		if got, _ := b.exec(main.ID, "env"); !strings.Contains(got, "FROM=spec\n") || !strings.Contains(got, "HOME=/home/user\n") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("it sees the container's processes and files", func(t *testing.T) {
		if got, _ := b.exec(main.ID, "print", "/proc/1/cmdline"); got != "/pod\x00sleep\x00" {
			t.Errorf("got %q", got)
		}
		if got, _ := b.exec(main.ID, "print", "/etc/seen"); got != "from the image\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("its code comes back", func(t *testing.T) {
		if _, code := b.exec(main.ID, "exit", "17"); code != 17 {
			t.Errorf("got %d", code)
		}
	})
	t.Run("a program that is not there is an error", func(t *testing.T) {
		if code, err := b.rt.Exec(t.Context(), main.ID, runtime.ExecSpec{Args: []string{"/nothing"}}); err == nil && code == 0 {
			t.Error("it succeeded")
		}
	})
	t.Run("stdin reaches it and ends", func(t *testing.T) {
		var out output
		big := strings.Repeat("line of input\n", 20_000)
		code, err := b.rt.Exec(t.Context(), main.ID, runtime.ExecSpec{
			Args: []string{"/pod", "cat"}, Streams: runtime.Streams{In: strings.NewReader(big), Out: &out},
		})
		if err != nil || code != 0 || out.String() != big+"end of input\n" {
			t.Errorf("%d bytes back, code %d, %v", len(out.String()), code, err)
		}
	})
	t.Run("streams are told apart", func(t *testing.T) {
		var out, errs output
		_, err := b.rt.Exec(t.Context(), main.ID, runtime.ExecSpec{Args: []string{"/pod", "both"}, Streams: runtime.Streams{Out: &out, Err: &errs}})
		if err != nil || out.String() != "to stdout\n" || errs.String() != "to stderr\n" {
			t.Errorf("got %q and %q, %v", out.String(), errs.String(), err)
		}
	})
	t.Run("it is killed when the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out output
		go func() {
			eventuallyDo(out.has("tick 1"), cancel)
		}()
		_, err := b.rt.Exec(ctx, main.ID, runtime.ExecSpec{Args: []string{"/pod", "ticks"}, Streams: runtime.Streams{Out: &out}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		eventually(t, "its end", func() bool {
			stats, err := b.rt.Stats(t.Context(), b.sandbox)
			got, _ := b.exec(main.ID, "list", "/proc")
			return err == nil && stats.Time.After(time.Time{}) && strings.Count(got, "/proc/1 ") == 1 && processes(got) == 2
		})
	})
	t.Run("with a terminal", func(t *testing.T) { execTerminal(t, b, main.ID) })
	t.Run("not in a container that has ended", func(t *testing.T) {
		spec := b.spec("exit", "0")
		b.output(spec)
		_, err := b.rt.Exec(t.Context(), spec.ID, runtime.ExecSpec{Args: []string{"/pod", "id"}})
		if !errors.Is(err, runtime.ErrNotRunning) {
			t.Errorf("got %v", err)
		}
	})
}

// processes counts the numbered folders in a listing of /proc.
func processes(listing string) int {
	n := 0
	for line := range strings.Lines(listing) {
		name := strings.TrimPrefix(line, "/proc/")
		if name != "" && name[0] >= '0' && name[0] <= '9' {
			n++
		}
	}
	return n
}

// eventuallyDo is eventually for another goroutine: it acts without failing the test.
func eventuallyDo(ok func() bool, act func()) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range int(patience / (5 * time.Millisecond)) {
		if ok() {
			break
		}
		<-tick.C
	}
	act()
}

func execTerminal(t *testing.T, b *bench, id string) {
	var out output
	in, keys := io.Pipe()
	sizes := make(chan runtime.Size, 1)
	done := make(chan int, 1)
	go func() {
		code, err := b.rt.Exec(t.Context(), id, runtime.ExecSpec{
			Args: []string{"/pod", "tty"}, Terminal: true, Streams: runtime.Streams{In: in, Out: &out, Resize: sizes},
		})
		if err != nil {
			t.Error(err)
		}
		done <- code
	}()
	eventually(t, "the terminal", out.has("terminal: true"))
	sizes <- runtime.Size{Width: 101, Height: 43}
	eventually(t, "the new size", out.has("101 x 43"))
	if _, err := io.WriteString(keys, "hello\nquit\n"); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 7 || !strings.Contains(out.String(), "heard hello") {
		t.Errorf("code %d, output %q", code, out.String())
	}
}

func runAttach(t *testing.T, s Subject) {
	b := newBench(t, s)
	t.Run("output is copied to everybody", func(t *testing.T) {
		spec := b.spec("ticks")
		b.start(spec)
		var one, two output
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, o := range []*output{&one, &two} {
			wg.Go(func() {
				if err := b.rt.Attach(ctx, spec.ID, runtime.Streams{Out: o}); err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "ticks", func() bool { return one.has("tick")() && two.has("tick")() })
		cancel()
		wg.Wait()
		before := len(logLines(t, spec.LogPath))
		eventually(t, "more ticks", func() bool { return len(logLines(t, spec.LogPath)) > before })
	})
	t.Run("input reaches the program, twice", func(t *testing.T) {
		spec := b.spec("cat")
		spec.Stdin = true
		b.start(spec)
		for _, text := range []string{"first\n", "second\n"} {
			var out output
			ctx, cancel := context.WithCancel(t.Context())
			go eventuallyDo(out.has(text), cancel)
			if err := b.rt.Attach(ctx, spec.ID, runtime.Streams{In: strings.NewReader(text), Out: &out}); err != nil {
				t.Error(err)
			}
			if !out.has(text)() {
				t.Errorf("got %q", out.String())
			}
		}
	})
	t.Run("stdin once ends with the first client", func(t *testing.T) {
		spec := b.spec("cat")
		spec.Stdin, spec.StdinOnce = true, true
		b.start(spec)
		var out output
		if err := b.rt.Attach(t.Context(), spec.ID, runtime.Streams{In: strings.NewReader("only\n"), Out: &out}); err != nil {
			t.Error(err)
		}
		if end := b.ends.wait(t, spec.ID); end.ExitCode != 0 || out.String() != "only\nend of input\n" {
			t.Errorf("got %q, %+v", out.String(), end)
		}
	})
	t.Run("a terminal of the container's own", func(t *testing.T) {
		spec := b.spec("tty")
		spec.Process.Terminal, spec.Stdin = true, true
		b.start(spec)
		var out output
		in, keys := io.Pipe()
		sizes := make(chan runtime.Size, 1)
		done := make(chan error, 1)
		go func() { done <- b.rt.Attach(t.Context(), spec.ID, runtime.Streams{In: in, Out: &out, Resize: sizes}) }()
		sizes <- runtime.Size{Width: 77, Height: 22}
		if !s.OwnKernel { // gVisor has no console and tells a first process nothing of sizes
			eventually(t, "the new size", out.has("77 x 22"))
			if got, _ := b.exec(spec.ID, "list", "/dev"); !strings.Contains(got, "/dev/console ") {
				t.Errorf("no console in %q", got)
			}
		}
		if _, err := io.WriteString(keys, "quit\n"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if end := b.ends.wait(t, spec.ID); end.ExitCode != 7 {
			t.Errorf("got %+v", end)
		}
	})
}

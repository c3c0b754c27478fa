package logs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ebb.dev/ebb/internal/component/node/logs"
)

// client keeps what it gets and tells about it. While held it takes nothing.
type client struct {
	mu      sync.Mutex // guards text, and is locked to hold the client
	text    strings.Builder
	changed chan struct{}
}

func (c *client) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}()
	return c.text.Write(b)
}

func (c *client) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// followed is a log with a writer that rotates it as the guardian does and a client that follows it.
type followed struct {
	t        *testing.T
	ctx      context.Context
	path     string
	file     *os.File
	lines    int
	client   *client
	complete chan struct{}
	done     chan error
}

// follow begins to follow an empty log.
func follow(t *testing.T, o logs.Options) *followed {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	f := &followed{
		t: t, ctx: ctx, path: filepath.Join(t.TempDir(), "0.log"),
		client: &client{changed: make(chan struct{}, 1)}, complete: make(chan struct{}), done: make(chan error, 1),
	}
	f.create()
	l, err := logs.Open(f.path)
	if err != nil {
		t.Fatal(err)
	}
	o.Follow = true
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer l.Close()
		f.done <- l.Copy(ctx, o, f.complete, f.client)
	}()
	t.Cleanup(func() { cancel(); <-ended; f.file.Close() })
	return f
}

func (f *followed) create() {
	f.t.Helper()
	if f.file != nil {
		f.file.Close()
	}
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	f.file = file
}

// write writes so many lines more.
func (f *followed) write(n int) {
	f.t.Helper()
	for range n {
		f.put(record(f.lines, "stdout", "F", fmt.Sprint("line ", f.lines)))
		f.lines++
	}
}

func (f *followed) put(text string) {
	f.t.Helper()
	if _, err := f.file.WriteString(text); err != nil {
		f.t.Fatal(err)
	}
}

// away moves the files and does not begin a new one yet.
func (f *followed) away() {
	f.t.Helper()
	for i := 3; i >= 0; i-- {
		from := f.path
		if i > 0 {
			from = fmt.Sprint(f.path, ".", i)
		}
		if err := os.Rename(from, fmt.Sprint(f.path, ".", i+1)); err != nil && (i == 0 || !os.IsNotExist(err)) {
			f.t.Fatal(err)
		}
	}
}

func (f *followed) rotate() { f.away(); f.create() }

// text is what the client should have got.
func text(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintln(&b, "line", i)
	}
	return b.String()
}

// wait returns once the client has got all that was written so far.
func (f *followed) wait() {
	f.t.Helper()
	f.until(func(got string) bool { return got == text(0, f.lines) })
}

func (f *followed) until(ok func(got string) bool) {
	f.t.Helper()
	for !ok(f.client.String()) {
		select {
		case <-f.client.changed:
		case <-f.ctx.Done():
			f.t.Fatalf("after %d lines got %q", f.lines, f.client.String())
		}
	}
}

// end completes the log and checks what the client got of it.
func (f *followed) end(want string) {
	f.t.Helper()
	close(f.complete)
	if err := <-f.done; err != nil || f.client.String() != want {
		f.t.Errorf("got %q, %v\nwant %q", f.client.String(), err, want)
	}
}

func TestFollow(t *testing.T) {
	f := follow(t, logs.Options{Tail: -1})
	f.write(1)
	f.wait()
	two := record(1, "stdout", "F", "line 1")
	f.put(two[:20])
	f.put(two[20:])
	f.lines++
	f.wait()
	f.write(1)
	f.end(text(0, 3))
}

func TestFollowAcrossRotations(t *testing.T) {
	tests := map[string]func(f *followed){
		"after all was read":    func(f *followed) { f.wait(); f.rotate(); f.write(1) },
		"before all was read":   func(f *followed) { f.rotate(); f.write(1) },
		"with nothing after it": func(f *followed) { f.wait(); f.rotate() },
		"again and again": func(f *followed) {
			f.rotate()
			f.write(2)
			f.rotate()
			f.write(1)
			f.wait()
			f.rotate()
			f.write(1)
		},
		"whose last lines come late":        func(f *followed) { f.wait(); f.away(); f.write(2); f.create(); f.write(1) },
		"that does not begin a file":        func(f *followed) { f.wait(); f.away(); f.write(2); f.wait() },
		"that does not begin one for a bit": func(f *followed) { f.away(); f.write(2); f.wait(); f.create(); f.write(1) },
		"while the client takes nothing": func(f *followed) {
			f.wait()
			f.client.mu.Lock()
			for range 4 {
				f.write(1)
				f.rotate()
			}
			f.client.mu.Unlock()
			f.write(1)
		},
	}
	for name, rotate := range tests {
		t.Run(name, func(t *testing.T) {
			f := follow(t, logs.Options{Tail: -1})
			f.write(3)
			rotate(f)
			f.end(text(0, f.lines))
		})
	}
}

func TestFollowMissesOnlyWhatIsGone(t *testing.T) {
	f := follow(t, logs.Options{Tail: -1})
	f.write(1)
	f.wait()
	f.client.mu.Lock()
	for range 9 {
		f.rotate()
		f.write(1)
	}
	f.client.mu.Unlock()
	close(f.complete)
	if err := <-f.done; err != nil {
		t.Fatal(err)
	}
	// Which files were still there when it looked depends on how far it had read, the order does not.
	got, last := f.client.String(), -1
	for line := range strings.Lines(got) {
		var i int
		if _, err := fmt.Sscanf(line, "line %d\n", &i); err != nil || i <= last {
			t.Fatalf("line %q follows %d in %q", line, last, got)
		}
		last = i
	}
	if !strings.HasSuffix(got, text(6, 10)) {
		t.Errorf("got %q", got)
	}
}

func TestFollowSteadyRotations(t *testing.T) {
	f := follow(t, logs.Options{Tail: -1})
	const total, each = 3000, 10
	for f.lines < total {
		f.write(each)
		f.rotate()
		// The writer may be two files ahead: then nothing that was not read is deleted.
		behind := text(0, max(f.lines-2*each, 0))
		f.until(func(got string) bool { return len(got) >= len(behind) })
	}
	f.end(text(0, total))
}

func TestFollowPartsOfALineAcrossRotation(t *testing.T) {
	f := follow(t, logs.Options{Tail: -1, Timestamps: true})
	f.put(record(0, "stdout", "P", "one "))
	f.rotate()
	f.put(record(0, "stdout", "P", "line "))
	f.rotate()
	f.put(record(0, "stdout", "F", "only"))
	f.end("2030-01-01T00:00:00Z one line only\n")
}

func TestFollowUpToALimitAcrossRotation(t *testing.T) {
	f := follow(t, logs.Options{Tail: -1, Limit: 9})
	f.write(1)
	f.wait()
	f.rotate()
	f.write(1)
	if err := <-f.done; err != nil || f.client.String() != "line 0\nli" {
		t.Errorf("got %q, %v", f.client.String(), err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := logs.Open(file(t, record(0, "stdout", "F", "one")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := &client{changed: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- l.Copy(ctx, logs.Options{Follow: true, Tail: -1}, nil, c) }()
	<-c.changed
	cancel()
	if err := <-done; err != nil || c.String() != "one\n" {
		t.Errorf("got %q, %v", c.String(), err)
	}
}

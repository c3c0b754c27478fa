package logs_test

import (
	"bytes"
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

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// record is one line a second after the other.
func record(i int, stream, tag, text string) string {
	return fmt.Sprintf("%s %s %s %s\n", epoch.Add(time.Duration(i)*time.Second).Format(time.RFC3339Nano), stream, tag, text)
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	text := record(0, "stdout", "F", "one") + record(1, "stderr", "F", "two") + record(2, "stdout", "P", "thr") + record(2, "stdout", "F", "ee") + "rubbish\n" + record(3, "stdout", "F", "")
	tests := map[string]struct {
		options logs.Options
		want    string
	}{
		"all":                   {logs.Options{Tail: -1}, "one\ntwo\nthree\n\n"},
		"the last line":         {logs.Options{Tail: 1}, "\n"},
		"the last two":          {logs.Options{Tail: 2}, "three\n\n"},
		"none":                  {logs.Options{Tail: 0}, ""},
		"more than there are":   {logs.Options{Tail: 99}, "one\ntwo\nthree\n\n"},
		"since":                 {logs.Options{Tail: -1, Since: epoch.Add(2 * time.Second)}, "three\n\n"},
		"one stream":            {logs.Options{Tail: -1, Stream: "stderr"}, "two\n"},
		"at most so many bytes": {logs.Options{Tail: -1, Limit: 5}, "one\nt"},
		"with times":            {logs.Options{Tail: 2, Timestamps: true}, "2030-01-01T00:00:02Z three\n2030-01-01T00:00:03Z \n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := logs.Read(t.Context(), file(t, text), tc.options, nil, &out); err != nil || out.String() != tc.want {
				t.Errorf("got %q, %v, want %q", out.String(), err, tc.want)
			}
		})
	}
}

func TestTailOfLongLogs(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		b.WriteString(record(i, "stdout", "F", strings.Repeat("x", i%300)+fmt.Sprint(" line ", i)))
	}
	path := file(t, b.String())
	for _, n := range []int{1, 7, 500, 2000, 5000, 6000} {
		var out bytes.Buffer
		if err := logs.Read(t.Context(), path, logs.Options{Tail: n}, nil, &out); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if want := min(n, 5000); len(lines) != want || !strings.HasSuffix(lines[0], fmt.Sprint(" line ", 5000-want)) {
			t.Errorf("tail %d gave %d lines from %.40q", n, len(lines), lines[0])
		}
	}
	text, err := logs.Tail(path, 2, 1000)
	if err != nil || strings.Count(text, "\n") != 2 || !strings.HasSuffix(text, " line 4999\n") {
		t.Errorf("tail = %q, %v", text, err)
	}
}

// shared is a buffer for a writer and a reader.
type shared struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func TestFollow(t *testing.T) {
	path := file(t, record(0, "stdout", "F", "one"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out shared
	complete, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- logs.Read(ctx, path, logs.Options{Follow: true, Tail: -1}, complete, &out)
	}()
	wait := func(want string) {
		t.Helper()
		for out.String() != want {
			select {
			case <-ctx.Done():
				t.Fatalf("got %q, want %q", out.String(), want)
			case <-time.After(time.Millisecond):
			}
		}
	}
	wait("one\n")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	two := record(1, "stdout", "F", "two")
	for _, part := range []string{two[:20], two[20:]} {
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	wait("one\ntwo\n")
	if _, err := f.WriteString(record(2, "stdout", "F", "last")); err != nil {
		t.Fatal(err)
	}
	close(complete)
	if err := <-done; err != nil || out.String() != "one\ntwo\nlast\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

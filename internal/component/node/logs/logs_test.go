package logs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// read is what a client gets of a log that nobody follows.
func read(t *testing.T, path string, o logs.Options) string {
	t.Helper()
	l, err := logs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out bytes.Buffer
	if err := l.Copy(t.Context(), o, nil, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCopy(t *testing.T) {
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
			if got := read(t, file(t, text), tc.options); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
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
		lines := strings.Split(strings.TrimSuffix(read(t, path, logs.Options{Tail: n}), "\n"), "\n")
		if want := min(n, 5000); len(lines) != want || !strings.HasSuffix(lines[0], fmt.Sprint(" line ", 5000-want)) {
			t.Errorf("tail %d gave %d lines from %.40q", n, len(lines), lines[0])
		}
	}
	text, err := logs.Tail(path, 2, 1000)
	if err != nil || strings.Count(text, "\n") != 2 || !strings.HasSuffix(text, " line 4999\n") {
		t.Errorf("tail = %q, %v", text, err)
	}
}

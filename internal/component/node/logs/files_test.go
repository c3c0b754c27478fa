package logs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/component/node/logs"
)

// rotated makes a log of files, oldest first; an empty name of the last leaves it out.
func rotated(t *testing.T, texts ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	for i, text := range texts {
		name := path
		if n := len(texts) - 1 - i; n > 0 {
			name = fmt.Sprint(path, ".", n)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestCopyOfRotatedLogs(t *testing.T) {
	texts := []string{
		record(0, "stdout", "F", "zero") + record(1, "stdout", "F", "one"),
		record(2, "stdout", "F", "two") + record(3, "stdout", "P", "thr"),
		record(4, "stdout", "F", "ee") + record(5, "stderr", "F", "four"),
		"",
	}
	all := "zero\none\ntwo\nthree\nfour\n"
	tests := map[string]struct {
		options logs.Options
		want    string
	}{
		"all":                             {logs.Options{Tail: -1}, all},
		"the last line, in an older file": {logs.Options{Tail: 1}, "four\n"},
		"a line that began in another":    {logs.Options{Tail: 2}, "three\nfour\n"},
		"up to the end of a file":         {logs.Options{Tail: 3}, "two\nthree\nfour\n"},
		"some of the oldest":              {logs.Options{Tail: 4}, "one\ntwo\nthree\nfour\n"},
		"just all":                        {logs.Options{Tail: 5}, all},
		"more than there are":             {logs.Options{Tail: 50}, all},
		"none":                            {logs.Options{Tail: 0}, ""},
		"since":                           {logs.Options{Tail: -1, Since: epoch.Add(2 * time.Second)}, "two\nthree\nfour\n"},
		"the tail and since":              {logs.Options{Tail: 2, Since: epoch.Add(5 * time.Second)}, "four\n"},
		"at most so many bytes":           {logs.Options{Tail: -1, Limit: 12}, "zero\none\ntwo"},
		"so many bytes of the tail":       {logs.Options{Tail: 3, Limit: 6}, "two\nth"},
		"one stream":                      {logs.Options{Tail: -1, Stream: "stderr"}, "four\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := read(t, rotated(t, texts...), tc.options); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCopyReadsWhatWasThereWhenItWasOpened(t *testing.T) {
	path := rotated(t, record(0, "stdout", "F", "one"), record(1, "stdout", "F", "two"))
	l, err := logs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := logs.Remove(path); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := l.Copy(t.Context(), logs.Options{Tail: -1}, nil, &out); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestOpen(t *testing.T) {
	path := rotated(t, record(0, "stdout", "F", "old"), record(1, "stdout", "F", "older than nothing"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, logs.Options{Tail: -1}); got != "old\n" {
		t.Errorf("amid a rotation: got %q", got)
	}
	if _, err := logs.Open(filepath.Join(t.TempDir(), "0.log")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a log: %v", err)
	}
}

func TestRemove(t *testing.T) {
	path := rotated(t, "c", "b", "a", "d", "e")
	other := filepath.Join(filepath.Dir(path), "10.log")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := logs.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(left) != 1 || left[0] != other {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestTail(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	var parts strings.Builder
	for range 40 {
		parts.WriteString(record(0, "stdout", "P", long))
	}
	tests := map[string]struct {
		texts []string
		want  string
	}{
		"right after a rotation":   {[]string{record(0, "stdout", "F", "one"), ""}, "one\n"},
		"soon after a rotation":    {[]string{record(0, "stdout", "F", "one"), record(1, "stderr", "F", "two")}, "one\ntwo\n"},
		"of more than wanted":      {[]string{record(0, "stdout", "F", "zero") + record(1, "stdout", "F", "one") + record(2, "stdout", "F", "two"), record(3, "stdout", "F", "three")}, "one\ntwo\nthree\n"},
		"amid a rotation":          {[]string{record(0, "stdout", "F", "one"), record(1, "stdout", "F", "two"), ""}, "one\ntwo\n"},
		"of a line without an end": {[]string{record(0, "stdout", "F", "one"), record(1, "stdout", "P", "two")}, "one\ntwo"},
		"of very long lines":       {[]string{parts.String() + record(0, "stdout", "F", "a"), record(0, "stdout", "F", "b")}, strings.Repeat("x", 96) + "a\nb\n"},
		"of a long line, cut":      {[]string{parts.String(), record(0, "stdout", "F", "the end")}, strings.Repeat("x", 92) + "the end\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := logs.Tail(rotated(t, tc.texts...), 3, 100)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	if _, err := logs.Tail(filepath.Join(t.TempDir(), "0.log"), 3, 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a log: %v", err)
	}
}

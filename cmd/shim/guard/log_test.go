package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newLog(t *testing.T) (*criLog, string) {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(fd, "0.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l, dir
}

// lines reads a log without its stamps.
func lines(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			t.Fatalf("no stamp in %q", line)
		}
		list = append(list, rest)
	}
	return list
}

func TestLogKeepsLinesTogether(t *testing.T) {
	long := strings.Repeat("x", logLineBytes)
	for name, row := range map[string]struct {
		writes []string
		want   []string
	}{
		"a line":                       {[]string{"one\n"}, []string{"stdout F one"}},
		"a line in pieces":             {[]string{"o", "n", "e\n"}, []string{"stdout F one"}},
		"lines in one piece":           {[]string{"one\ntwo\n"}, []string{"stdout F one", "stdout F two"}},
		"an empty line":                {[]string{"\n"}, []string{"stdout F "}},
		"no end":                       {[]string{"one"}, []string{"stdout P one"}},
		"as long as a part":            {[]string{long + "\n"}, []string{"stdout F " + long}},
		"one more":                     {[]string{long + "y\n"}, []string{"stdout P " + long, "stdout F y"}},
		"one more, in pieces":          {[]string{long, "y", "\n"}, []string{"stdout P " + long, "stdout F y"}},
		"two parts without an end":     {[]string{long + long}, []string{"stdout P " + long, "stdout P " + long}},
		"a line after one without end": {[]string{"a", "b\nc"}, []string{"stdout F ab", "stdout P c"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, dir := newLog(t)
			for _, w := range row.writes {
				l.write(1, []byte(w))
			}
			l.finish(1)
			got := lines(t, filepath.Join(dir, "0.log"))
			if strings.Join(got, "|") != strings.Join(row.want, "|") {
				t.Errorf("got %.200q", got)
			}
		})
	}
}

func TestLogRotates(t *testing.T) {
	l, dir := newLog(t)
	line := []byte(strings.Repeat("x", 8<<10) + "\n")
	for range (logFiles + 2) * logFileBytes / len(line) {
		l.write(1, line)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != logFiles {
		t.Fatalf("files %v, %v", files, err)
	}
	for i := range logFiles - 1 {
		st, err := os.Stat(filepath.Join(dir, fmt.Sprintf("0.log.%d", i+1)))
		if err != nil || st.Size() > logFileBytes || st.Size() < logFileBytes/2 {
			t.Errorf("file %d: %v, %v", i+1, st, err)
		}
	}
	l.write(1, []byte("newest\n"))
	if got := lines(t, filepath.Join(dir, "0.log")); got[len(got)-1] != "stdout F newest" {
		t.Errorf("the newest line is %.50q", got[len(got)-1])
	}
}

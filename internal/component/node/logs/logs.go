// Package logs reads container logs in the CRI format: one line each of time, stream, F or P for
// full or partial, and text.
package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

// line is one parsed record.
type line struct {
	at     time.Time
	stamp  []byte
	stderr bool
	full   bool
	text   []byte
}

// parse reads one record without its line end; ok is false for anything else.
func parse(b []byte) (l line, ok bool) {
	stamp, rest, found := bytes.Cut(b, []byte(" "))
	if !found {
		return l, false
	}
	stream, rest, found := bytes.Cut(rest, []byte(" "))
	if !found {
		return l, false
	}
	tag, text, found := bytes.Cut(rest, []byte(" "))
	if !found {
		tag, text = rest, nil
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || len(tag) == 0 {
		return l, false
	}
	return line{at: at, stamp: stamp, stderr: string(stream) == "stderr", full: tag[0] == 'F', text: text}, true
}

const (
	chunk   = 32 << 10
	maxLine = 256 << 10 // a record longer than this is cut
)

// Tail returns the last lines of a log, at most so many lines and bytes, without times.
func Tail(path string, lines, limit int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	from, err := tailOffset(f, lines)
	if err != nil {
		return "", err
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return "", err
	}
	raw, err := io.ReadAll(io.LimitReader(f, 4*int64(limit)+int64(lines)*64+chunk))
	if err != nil {
		return "", err
	}
	var out []byte
	for b := range bytes.SplitSeq(raw, []byte("\n")) {
		if l, ok := parse(b); ok {
			out = append(out, l.text...)
			if l.full {
				out = append(out, '\n')
			}
		}
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return string(out), nil
}

// tailOffset finds where the last n full lines begin. It reads backwards, so that a long log costs
// no more than its end.
func tailOffset(f *os.File, n int) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if n <= 0 {
		return info.Size(), nil
	}
	seen := 0
	var later []byte // the beginning of what was read before, to complete a record across chunks
	for end := info.Size(); end > 0; {
		begin := max(end-chunk, 0)
		buf := make([]byte, end-begin, int(end-begin)+len(later))
		if _, err := f.ReadAt(buf, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		buf = append(buf, later...)
		at, rest := countBack(buf, begin > 0, n, &seen)
		if at >= 0 {
			return begin + int64(at), nil
		}
		later = append([]byte(nil), buf[:min(rest, maxLine)]...)
		end = begin
	}
	return 0, nil
}

// countBack counts full lines from the end of buf, on top of seen. at is where the last n begin, or
// negative; rest is how much of buf was not counted because it begins in an earlier chunk.
func countBack(buf []byte, more bool, n int, seen *int) (at, rest int) {
	cut := len(buf)
	for {
		i := bytes.LastIndexByte(buf[:cut], '\n')
		if i < 0 {
			return -1, cut
		}
		start := bytes.LastIndexByte(buf[:i], '\n') + 1
		if start == 0 && more {
			return -1, cut
		}
		if l, ok := parse(buf[start:i]); ok && l.full {
			if *seen == n {
				return i + 1, 0
			}
			*seen++
		}
		cut = start
	}
}

// Package logs reads container logs in the CRI format: one line each of time, stream, F or P for
// full or partial, and text. A log's writer moves a file that grew too long away and begins a new
// one; readers see all of them as one log.
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
	l, err := Open(path)
	if err != nil {
		return "", err
	}
	defer l.Close()
	if err := l.skip(lines); err != nil {
		return "", err
	}
	// What so many lines and bytes may take with their stamps, and a chunk for long records.
	cut, err := l.skipBytes(4*int64(limit) + int64(lines)*64 + chunk)
	if err != nil {
		return "", err
	}
	var out []byte
	for _, f := range l.files {
		raw, err := io.ReadAll(f)
		if err != nil {
			return "", err
		}
		if cut {
			_, raw, _ = bytes.Cut(raw, []byte("\n"))
			cut = false
		}
		out = texts(out, raw)
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return string(out), nil
}

// texts appends what the records say.
func texts(out, raw []byte) []byte {
	for b := range bytes.SplitSeq(raw, []byte("\n")) {
		if l, ok := parse(b); ok {
			out = append(out, l.text...)
			if l.full {
				out = append(out, '\n')
			}
		}
	}
	return out
}

// tailOffset finds where the last n full lines begin, on top of seen, which it counts on. It is
// negative when there are not that many. It reads backwards, so that a long log costs no more than
// its end.
func tailOffset(f *os.File, n int, seen *int) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if n <= 0 {
		return info.Size(), nil
	}
	var later []byte // the beginning of what was read before, to complete a record across chunks
	for end := info.Size(); end > 0; {
		begin := max(end-chunk, 0)
		buf := make([]byte, end-begin, int(end-begin)+len(later))
		if _, err := f.ReadAt(buf, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		buf = append(buf, later...)
		at, rest := countBack(buf, begin > 0, n, seen)
		if at >= 0 {
			return begin + int64(at), nil
		}
		later = append([]byte(nil), buf[:min(rest, maxLine)]...)
		end = begin
	}
	return -1, nil
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

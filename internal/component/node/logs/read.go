package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options are what can be asked of a log, as in Kubernetes' PodLogOptions.
type Options struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero for all
	Tail       int       // lines from the end; negative for all
	Limit      int64     // bytes; zero for all
	Stream     string    // "stdout", "stderr"; "" for both
}

// errLimit ends a reading that has given all it may.
var errLimit = errors.New("limit reached")

// Read copies a log to w. With Follow it goes on until complete is closed and the rest was read, or
// ctx ends. Every write to w is whole lines as far as the log has them.
func Read(ctx context.Context, path string, o Options, complete <-chan struct{}, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if o.Tail >= 0 {
		from, err := tailOffset(f, o.Tail)
		if err != nil {
			return err
		}
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return err
		}
	}
	r := &reader{Options: o, w: w, left: o.Limit, fresh: true}
	err = r.follow(ctx, f, complete)
	if errors.Is(err, errLimit) || ctx.Err() != nil {
		return nil
	}
	return err
}

// reader turns records into what the client sees.
type reader struct {
	Options
	w     io.Writer
	left  int64
	rest  []byte // of a record that is not complete yet
	out   []byte
	fresh bool // the next text begins a line
}

func (r *reader) follow(ctx context.Context, f *os.File, complete <-chan struct{}) error {
	var changes <-chan fsnotify.Event
	var tick <-chan time.Time
	if r.Follow {
		watcher, err := fsnotify.NewWatcher()
		if err == nil {
			defer watcher.Close()
			err = watcher.Add(filepath.Clean(f.Name()))
			changes = watcher.Events
		}
		if err != nil { // the kernel's watches are used up: look every now and then
			ticker := time.NewTicker(250 * time.Millisecond)
			defer ticker.Stop()
			tick, changes = ticker.C, nil
		}
	}
	for over := false; ; {
		if err := r.drain(f); err != nil {
			return err
		}
		if over || !r.Follow {
			return r.end()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changes:
			if !ok {
				return r.end()
			}
		case <-tick:
		case <-complete:
			over = true // one more look: the last lines may have come after the former
		}
	}
}

// drain reads what is there.
func (r *reader) drain(f *os.File) error {
	buf := make([]byte, chunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := r.take(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) take(b []byte) error {
	data := slices.Concat(r.rest, b)
	r.out = r.out[:0]
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		r.record(data[:i])
		data = data[i+1:]
	}
	r.rest = append([]byte(nil), data...)
	if len(r.rest) > maxLine {
		r.rest = r.rest[:maxLine]
	}
	return r.flush()
}

func (r *reader) record(b []byte) {
	l, ok := parse(b)
	if !ok || l.at.Before(r.Since) {
		return
	}
	if (r.Stream == "stdout" && l.stderr) || (r.Stream == "stderr" && !l.stderr) {
		return
	}
	if r.Timestamps && r.fresh {
		r.out = append(append(r.out, l.stamp...), ' ')
	}
	r.out = append(r.out, l.text...)
	if l.full {
		r.out = append(r.out, '\n')
	}
	r.fresh = l.full
}

func (r *reader) flush() error {
	if len(r.out) == 0 {
		return nil
	}
	out := r.out
	if r.Limit > 0 && int64(len(out)) >= r.left {
		out = out[:r.left]
	}
	if _, err := r.w.Write(out); err != nil {
		return err
	}
	if r.Limit > 0 {
		if r.left -= int64(len(out)); r.left <= 0 {
			return errLimit
		}
	}
	return nil
}

// end gives out a record that never got its line end.
func (r *reader) end() error {
	if len(r.rest) == 0 {
		return nil
	}
	r.out = r.out[:0]
	r.record(r.rest)
	return r.flush()
}

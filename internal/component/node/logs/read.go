package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
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

// Copy writes the log to w. With Follow it goes on until complete is closed and the rest was read, or
// ctx ends. Every write to w is whole lines as far as the log has them.
func (l *Log) Copy(ctx context.Context, o Options, complete <-chan struct{}, w io.Writer) error {
	var changed changes
	if o.Follow {
		changed = watch(filepath.Dir(l.path))
		defer changed.stop()
	}
	if o.Tail >= 0 {
		if err := l.skip(o.Tail); err != nil {
			return err
		}
	}
	r := &reader{Options: o, w: w, left: o.Limit, buf: make([]byte, chunk), fresh: true}
	err := r.follow(ctx, l, changed, complete)
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
	buf   []byte // to read into
	rest  []byte // of a record that is not complete yet
	out   []byte
	fresh bool // the next text begins a line
}

func (r *reader) follow(ctx context.Context, l *Log, changed changes, complete <-chan struct{}) error {
	for over := false; ; {
		if err := r.drainAll(ctx, l); err != nil {
			return err
		}
		if over || !r.Follow {
			return r.end()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changed.events:
			over = !ok
		case _, ok := <-changed.errors: // some were lost: look
			over = !ok
		case <-changed.tick:
		case <-complete:
			over = true // one more look: the last lines may have come after the former
		}
	}
}

// changes tell that a folder may have changed.
type changes struct {
	events <-chan fsnotify.Event
	errors <-chan error
	tick   <-chan time.Time
	stop   func()
}

// watch looks at the folder, because the log's own name will stand for another file. From its return
// on no change goes unnoticed.
func watch(folder string) changes {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(folder); err == nil {
			return changes{watcher.Events, watcher.Errors, nil, func() { _ = watcher.Close() }}
		}
		_ = watcher.Close() // the failure to watch counts
	}
	// The kernel's watches are used up: look every now and then.
	ticker := time.NewTicker(250 * time.Millisecond)
	return changes{nil, nil, ticker.C, ticker.Stop}
}

// drainAll reads what is there, of newer files too when following. The last file stays open: its
// writer may go on with it.
func (r *reader) drainAll(ctx context.Context, l *Log) error {
	for {
		if err := r.drain(ctx, l.files[0]); err != nil {
			return err
		}
		if len(l.files) == 1 {
			if !r.Follow {
				return nil
			}
			moved, err := l.advance()
			if err != nil || !moved {
				return err
			}
			// The writer had let go of this file when it began the next: now its end is the end.
			if err := r.drain(ctx, l.files[0]); err != nil {
				return err
			}
		}
		if err := r.end(); err != nil {
			return err
		}
		if err := l.files[0].Close(); err != nil {
			return err
		}
		l.files = l.files[1:]
	}
}

// advance opens the files that are newer than the last one and says whether there are any.
func (l *Log) advance() (bool, error) {
	last, err := l.files[len(l.files)-1].Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(now, last) {
		return false, nil // moved away but not followed by another yet, or as before
	}
	if err != nil {
		return false, err
	}
	newer, err := newest(l.path, last)
	l.files = append(l.files, newer...)
	return len(newer) > 0, err
}

// drain reads what is there.
func (r *reader) drain(ctx context.Context, f *os.File) error {
	for ctx.Err() == nil {
		n, err := f.Read(r.buf)
		if n > 0 {
			if err := r.take(r.buf[:n]); err != nil {
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
	return ctx.Err()
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
	r.rest = nil
	return r.flush()
}

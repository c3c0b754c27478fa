package requestlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
)

// Bounds of a Shelf.
const (
	kept     = 1000     // lines in memory
	lagging  = 1000     // lines a reader may be behind
	fileSize = 64 << 20 // when the file gives way to a new one
)

// Shelf keeps lines: all in a file, of which one predecessor is kept, and the latest in memory for those
// who ask for one service's. Its methods may be called from many goroutines.
type Shelf struct {
	path string
	size int64 // fileSize, but for tests
	log  *slog.Logger

	mu      sync.Mutex // guards all below
	file    *os.File   // nil until the first line
	written int64
	failed  bool // the file could not be written last time
	last    []Line
	next    int // in last, once it is full
	readers map[chan Line]struct{}
}

// NewShelf keeps lines in a file; it is made with the first line.
func NewShelf(path string, log *slog.Logger) *Shelf {
	return &Shelf{path: path, size: fileSize, log: log, readers: map[chan Line]struct{}{}}
}

// Put keeps a line.
func (s *Shelf) Put(line Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.append(line.Text); err != nil && !s.failed {
		s.log.Error("writing the request log", "error", err)
		s.failed = true
	} else if err == nil {
		s.failed = false
	}
	if len(s.last) < kept {
		s.last = append(s.last, line)
	} else {
		s.last[s.next] = line
		s.next = (s.next + 1) % kept
	}
	for reader := range s.readers {
		select {
		case reader <- line:
		default: // it lags too far behind
		}
	}
}

// append writes to the file. s.mu is held.
func (s *Shelf) append(text []byte) error {
	if s.file != nil && s.written >= s.size {
		err := errors.Join(s.file.Close(), os.Rename(s.path, s.path+".1"))
		s.file = nil
		if err != nil {
			return err
		}
	}
	if s.file == nil {
		file, err := os.OpenFile(s.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err != nil {
			return errors.Join(err, file.Close())
		}
		s.file, s.written = file, info.Size()
	}
	n, err := s.file.Write(append(slices.Clip(text), '\n'))
	s.written += int64(n)
	return err
}

// Ask says which lines are read.
type Ask struct {
	Namespace, Service string // empty for all
	Tail               int    // how many of those there are, at most; below 0 for all that are in memory
	Follow             bool   // go on with those that come
}

func (a *Ask) wants(l Line) bool {
	return (a.Namespace == "" || a.Namespace == l.Namespace) && (a.Service == "" || a.Service == l.Service)
}

// Read gives the lines asked for to fn, until it fails or, following, ctx ends.
func (s *Shelf) Read(ctx context.Context, a Ask, fn func(text []byte) error) error {
	past, coming := s.open(a)
	defer s.leave(coming)
	for _, line := range past {
		if err := fn(line.Text); err != nil {
			return err
		}
	}
	for a.Follow {
		select {
		case <-ctx.Done():
			return nil
		case line := <-coming:
			if !a.wants(line) {
				continue
			}
			if err := fn(line.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

// open finds the lines there are and begins to listen for those that come.
func (s *Shelf) open(a Ask) (past []Line, coming chan Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.last {
		if line := s.last[(s.next+i)%len(s.last)]; a.wants(line) {
			past = append(past, line)
		}
	}
	if a.Tail >= 0 && len(past) > a.Tail {
		past = past[len(past)-a.Tail:]
	}
	coming = make(chan Line, lagging)
	s.readers[coming] = struct{}{}
	return past, coming
}

func (s *Shelf) leave(coming chan Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, coming)
}

// Close closes the file.
func (s *Shelf) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	if err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("closing the request log: %w", err)
	}
	return nil
}

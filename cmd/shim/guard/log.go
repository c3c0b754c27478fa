package guard

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a container's log. The current file keeps its name; older ones get .1 (newest) to .4.
const (
	logFileBytes = 10 << 20
	logFiles     = 5
	logLineBytes = 16 << 10 // longer lines are cut into parts tagged P
)

var streamNames = [...]string{"", "stdout", "stderr"}

// criLog writes lines as the Kubernetes container runtime interface defines them:
//
//	2006-01-02T15:04:05.999999999Z stdout F the line
//
// A nil criLog takes everything and keeps nothing. Output that cannot be written (a full disk) is
// lost, because the container must not stop for its log.
type criLog struct {
	dir  int // folder of the files
	name string

	mu      sync.Mutex
	file    int // -1 when it could not be opened
	size    int64
	pending [3][]byte // an unfinished line per stream
	buf     []byte
}

func openLog(dir int, name string) (*criLog, error) {
	l := &criLog{dir: dir, name: name, file: -1}
	if err := l.open(); err != nil {
		unix.Close(dir)
		return nil, err
	}
	return l, nil
}

func (l *criLog) open() error {
	fd, err := unix.Openat(l.dir, l.name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	l.file, l.size = fd, st.Size
	return nil
}

// write adds output of a stream; whole lines reach the file at once.
func (l *criLog) write(stream int, p []byte) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	stamp := time.Now().UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000000Z")
	l.buf = l.buf[:0]
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		p = rest
		held := l.pending[stream]
		for len(held)+len(line) > logLineBytes {
			n := logLineBytes - len(held)
			l.add(stamp, stream, 'P', held, line[:n])
			held, line = nil, line[n:]
		}
		if whole {
			l.add(stamp, stream, 'F', held, line)
			l.pending[stream] = l.pending[stream][:0]
			continue
		}
		l.pending[stream] = append(append([]byte(nil), held...), line...)
	}
	l.flush()
}

// finish writes what is left of a stream that ended without a line's end.
func (l *criLog) finish(stream int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending[stream]) == 0 {
		return
	}
	stamp := time.Now().UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000000Z")
	l.buf = l.buf[:0]
	l.add(stamp, stream, 'P', l.pending[stream], nil)
	l.pending[stream] = nil
	l.flush()
}

func (l *criLog) add(stamp []byte, stream int, tag byte, head, tail []byte) {
	l.buf = append(l.buf, stamp...)
	l.buf = append(l.buf, ' ')
	l.buf = append(l.buf, streamNames[stream]...)
	l.buf = append(l.buf, ' ', tag, ' ')
	l.buf = append(l.buf, head...)
	l.buf = append(l.buf, tail...)
	l.buf = append(l.buf, '\n')
}

func (l *criLog) flush() {
	if len(l.buf) == 0 {
		return
	}
	if l.size > 0 && l.size+int64(len(l.buf)) > logFileBytes {
		l.rotate()
	}
	for p := l.buf; len(p) > 0 && l.file >= 0; {
		n, err := unix.Write(l.file, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		l.size += int64(n)
		p = p[n:]
	}
}

func (l *criLog) rotate() {
	for i := logFiles - 2; i >= 1; i-- {
		_ = unix.Renameat(l.dir, l.numbered(i), l.dir, l.numbered(i+1)) // not there yet is fine
	}
	if err := unix.Renameat(l.dir, l.name, l.dir, l.numbered(1)); err != nil {
		return // somebody else moved it: go on with the open file
	}
	old := l.file
	if err := l.open(); err != nil {
		os.Stderr.WriteString("guard: opening a new log: " + err.Error() + "\n")
		return // the old file takes the rest
	}
	unix.Close(old)
}

func (l *criLog) numbered(i int) string { return l.name + "." + strconv.Itoa(i) }

func (l *criLog) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file >= 0 {
		unix.Close(l.file)
		l.file = -1
	}
	if l.dir >= 0 {
		unix.Close(l.dir)
		l.dir = -1
	}
}

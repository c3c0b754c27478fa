package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
)

// rotations is how many older files of a log are looked for; writers keep fewer.
const rotations = 9

// Log is an opened log: the file its writer writes to and the older ones that it moved away under
// the names path.1 (newest), path.2 and so on. What is open stays readable whatever the writer does
// next.
type Log struct {
	path  string
	files []*os.File // oldest first, never empty
}

// Open opens all there is of a log. It fails with fs.ErrNotExist when there is nothing.
func Open(path string) (*Log, error) {
	files, err := newest(path, nil)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("opening log %s: %w", path, fs.ErrNotExist)
	}
	return &Log{path: path, files: files}, nil
}

// Close closes what is open of the log.
func (l *Log) Close() error { return closeAll(l.files) }

// scans bounds how often newest looks again; a rotation takes ten megabytes of output.
const scans = 5

// newest opens a log's files down to the one already known, or all for nil, and gives them oldest
// first. It looks again when the log was rotated meanwhile.
func newest(path string, known os.FileInfo) ([]*os.File, error) {
	for i := 1; ; i++ {
		files, still, err := scan(path, known)
		if err != nil || still || i == scans {
			slices.Reverse(files)
			return files, err
		}
		if err := closeAll(files); err != nil {
			return nil, err
		}
	}
}

// scan opens a log's files from the newest to the oldest, the way a rotation moves them: one rotation
// meanwhile can show a file twice, which is noticed, but hide none. still says that there was none.
func scan(path string, known os.FileInfo) (files []*os.File, still bool, err error) {
	var first os.FileInfo
	var seen []os.FileInfo
	for i := range rotations + 1 {
		f, info, err := open(numbered(path, i))
		if errors.Is(err, fs.ErrNotExist) {
			continue // in the middle of a rotation there are gaps
		}
		if err != nil {
			return nil, false, errors.Join(err, closeAll(files))
		}
		if i == 0 {
			first = info
		}
		same := func(other os.FileInfo) bool { return os.SameFile(info, other) }
		if known != nil && same(known) {
			_ = f.Close() // only read from
			break
		}
		if slices.ContainsFunc(seen, same) {
			_ = f.Close() // as above
			continue
		}
		files, seen = append(files, f), append(seen, info)
	}
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return files, first == nil, nil
	}
	return files, err == nil && first != nil && os.SameFile(now, first), nil
}

func open(path string) (*os.File, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// numbered is the name of a log's file, 0 for the one being written.
func numbered(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

func closeAll(files []*os.File) error {
	var failed []error
	for _, f := range files {
		failed = append(failed, f.Close())
	}
	return errors.Join(failed...)
}

// Remove deletes a log with its older files. One that is not there is no error.
func Remove(path string) error {
	var failed []error
	for i := range rotations + 1 {
		if err := os.Remove(numbered(path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// skip forgets all before the last n full lines and puts the first file where they begin.
func (l *Log) skip(n int) error {
	seen := 0
	for i, f := range slices.Backward(l.files) {
		at, err := tailOffset(f, n, &seen)
		if err != nil {
			return err
		}
		if at < 0 {
			continue
		}
		err = closeAll(l.files[:i])
		l.files = l.files[i:]
		if _, seekErr := f.Seek(at, io.SeekStart); seekErr != nil {
			return seekErr
		}
		return err
	}
	return nil
}

// skipBytes forgets all before about the last so many bytes, as far as they are not forgotten yet. It
// says whether what is left may begin amid a record.
func (l *Log) skipBytes(most int64) (cut bool, err error) {
	for i, f := range slices.Backward(l.files) {
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return false, err
		}
		info, err := f.Stat()
		if err != nil {
			return false, err
		}
		if most -= info.Size() - at; most > 0 {
			continue
		}
		_, err = f.Seek(-most, io.SeekCurrent)
		err = errors.Join(err, closeAll(l.files[:i]))
		l.files = l.files[i:]
		return most < 0, err
	}
	return false, nil
}

package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// uploadAge is how long an upload that nobody continues is kept.
const uploadAge = 24 * time.Hour

var sessionPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// uploads are the blobs on their way in, each a file that grows chunk by chunk. They survive a
// restart: a session that is not known is looked for on disk.
type uploads struct {
	folder folder
	limit  int

	mu   sync.Mutex // guards open; never held while bytes flow
	live map[string]*upload
}

// upload is one session. Its mutex is held while a chunk flows in, so chunks cannot mix.
type upload struct {
	mu   sync.Mutex
	id   string
	file *os.File
	size int64
	sum  hash.Hash // over all bytes in the file so far
	done bool
}

func (u *uploads) open(f folder, limit int) error {
	u.folder, u.limit, u.live = f, limit, map[string]*upload{}
	return u.expire(time.Now().Add(-uploadAge))
}

// expire removes uploads nobody has continued since a time.
func (u *uploads) expire(before time.Time) error {
	entries, err := fs.ReadDir(u.folder.FS(), "uploads")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.ModTime().After(before) {
			continue
		}
		u.drop(entry.Name())
	}
	return nil
}

// begin opens a new session.
func (u *uploads) begin() (*upload, error) {
	u.mu.Lock()
	full := len(u.live) >= u.limit
	u.mu.Unlock()
	if full {
		if err := u.expire(time.Now().Add(-time.Hour)); err != nil {
			return nil, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.live) >= u.limit {
		return nil, errTooManyUploads
	}
	var id [16]byte
	rand.Read(id[:]) // never fails
	up := &upload{id: hex.EncodeToString(id[:]), sum: sha256.New()}
	file, err := u.folder.OpenFile(up.name(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	up.file = file
	u.live[up.id] = up
	return up, nil
}

// find returns a session, reading it back from disk after a restart.
func (u *uploads) find(id string) (*upload, error) {
	if !sessionPattern.MatchString(id) {
		return nil, errUploadUnknown
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if up, ok := u.live[id]; ok {
		return up, nil
	}
	if len(u.live) >= u.limit {
		return nil, errTooManyUploads
	}
	file, err := u.folder.OpenFile((&upload{id: id}).name(), os.O_RDWR, 0)
	if absent(err) {
		return nil, errUploadUnknown
	}
	if err != nil {
		return nil, err
	}
	up := &upload{id: id, file: file, sum: sha256.New()}
	if up.size, err = io.Copy(up.sum, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	u.live[id] = up
	return up, nil
}

// drop ends a session and removes its file.
func (u *uploads) drop(id string) {
	u.mu.Lock()
	up := u.live[id]
	delete(u.live, id)
	u.mu.Unlock()
	if up != nil {
		up.mu.Lock()
		up.done = true
		_ = up.file.Close()
		up.mu.Unlock()
	}
	// A file left behind is found by expire.
	_ = u.folder.Remove((&upload{id: id}).name())
}

// forget ends a session whose file has become a blob.
func (u *uploads) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.live, id)
}

// name is the session's file in the folder.
func (up *upload) name() string { return path.Join("uploads", up.id) }

// write appends a chunk. When the sender breaks off, what came is kept and the session goes on from
// there; when the disk does, the session is over.
func (up *upload) write(body io.Reader, limit int64) error {
	for {
		n, err := io.CopyN(io.MultiWriter(up.file, up.sum), body, min(1<<20, limit-up.size+1))
		up.size += n
		if up.size > limit {
			return errTooLarge
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// digest is of the bytes so far.
func (up *upload) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(up.sum.Sum(nil))}
}

package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs are files named by their content's digest.
type blobs struct{ folder folder }

// freshness is how old a blob's time may be before a look at it renews it; it must stay well under
// the least grace of a collection.
const freshness = 10 * time.Minute

func (b blobs) path(h v1.Hash) string { return path.Join("blobs", h.Hex[:2], h.Hex) }

// open returns a blob's file and size, or errBlobUnknown.
func (b blobs) open(h v1.Hash) (*os.File, error) {
	f, err := b.folder.Open(b.path(h))
	if absent(err) {
		return nil, errBlobUnknown
	}
	return f, err
}

// has says whether a blob is here, and keeps it from the next collection: a client that was told so
// will not send it, and names it in a manifest soon.
func (b blobs) has(h v1.Hash) (bool, error) {
	info, err := b.folder.Stat(b.path(h))
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if now := time.Now(); now.Sub(info.ModTime()) > freshness {
		if err := b.folder.Chtimes(b.path(h), now, now); err != nil && !absent(err) {
			return false, err
		}
	}
	return true, nil
}

// add takes an open file of the folder, whose content has the digest, as the blob.
func (b blobs) add(f *os.File, name string, h v1.Hash) error {
	to := b.path(h)
	if err := b.folder.Mkdir(path.Dir(to), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return errors.Join(err, f.Close())
	}
	if err := b.folder.move(f, name, to); err != nil {
		return fmt.Errorf("keeping blob %s: %w", h, err)
	}
	return nil
}

// remove deletes a blob and tells how many bytes it had.
func (b blobs) remove(h v1.Hash) (int64, error) {
	info, err := b.folder.Stat(b.path(h))
	if absent(err) {
		return 0, errBlobUnknown
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), b.folder.remove(b.path(h))
}

// each visits every blob with its time of last use.
func (b blobs) each(visit func(h v1.Hash, used time.Time) error) error {
	return fs.WalkDir(b.folder.FS(), "blobs", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		h, err := v1.NewHash("sha256:" + entry.Name())
		if err != nil {
			return nil //nolint:nilerr // a file that is no blob is none of ours
		}
		info, err := entry.Info()
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return visit(h, info.ModTime())
	})
}

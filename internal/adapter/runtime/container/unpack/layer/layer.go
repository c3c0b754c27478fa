// Package layer writes an image layer's tar archive into a folder, as overlayfs wants it.
//
// Archives come from strangers. Nothing in one reaches outside its folder: parents are resolved
// inside the folder the way chroot would, names are never followed, and what the archive may cost
// is bounded. Device nodes are left out, since a container gets its devices from the runtime; of
// extended attributes only those that mean something inside a container are kept.
package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Errors an archive is refused with; callers use errors.Is.
var (
	// ErrHostile means the archive tries to reach outside its folder.
	ErrHostile = errors.New("archive reaches outside its layer")
	// ErrTooLarge means the archive is larger than it may be.
	ErrTooLarge = errors.New("layer too large")
	// ErrDigest means the content is not what its digest says.
	ErrDigest = errors.New("content does not match its digest")
	// ErrFormat means the compression is not one that images use.
	ErrFormat = errors.New("unknown compression")
)

// Limits bound what one layer may cost. Zero values mean no bound.
type Limits struct {
	Bytes   int64 // of the archive, uncompressed, and of the files in it
	Entries int   // names in it
}

// Report says what a layer brought.
type Report struct {
	Bytes   int64 // in files
	Entries int
	Devices int // left out
}

// Write unpacks a layer, compressed or not, into an empty folder, and compares the archive's digest
// with diffID, which is what the image's config calls the layer. On an error the folder is left as
// it came, for the caller to remove.
func Write(ctx context.Context, dir string, content io.Reader, diffID v1.Hash, limits Limits) (Report, error) {
	plain, err := decompress(content)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = plain.Close() }()
	sum := sha256.New()
	archive := &meter{ctx: ctx, from: plain, sum: sum, left: limits.Bytes, bounded: limits.Bytes > 0}
	w, err := newWriter(dir, limits)
	if err != nil {
		return Report{}, err
	}
	defer w.close()
	if err := w.all(tar.NewReader(archive)); err != nil {
		return w.report, err
	}
	// The digest covers what follows the archive's end as well.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return w.report, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != diffID.Hex {
		return w.report, fmt.Errorf("%w: wanted %s, got sha256:%s", ErrDigest, diffID, got)
	}
	return w.report, w.finish()
}

// meter hashes and bounds what flows through, and ends with ctx.
type meter struct {
	ctx     context.Context //nolint:containedctx // a reader has no other way to end early
	from    io.Reader
	sum     hash.Hash
	left    int64
	bounded bool
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.from.Read(p)
	m.sum.Write(p[:n])
	if m.left -= int64(n); m.bounded && m.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// entryTime is what files get whose archive names no time.
func entryTime(h *tar.Header) time.Time {
	if h.ModTime.IsZero() || h.ModTime.Unix() < 0 {
		return time.Unix(0, 0)
	}
	return h.ModTime
}

func openFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening layer folder: %w", err)
	}
	return f, nil
}

package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory one zstd stream may ask for; it is the format's recommended maximum
// for decoders, at the highest ordinary level.
const zstdWindow = 128 << 20

// signatures of what layers come in, by their first bytes.
var signatures = []struct {
	name  string
	magic []byte
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"gzip", []byte{0x1f, 0x8b}, func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, openZstd},
	{"zstd", []byte{0x50, 0x2a, 0x4d, 0x18}, openZstd}, // a skippable frame first, as zstd:chunked has
	{"bzip2", []byte("BZh"), nil},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}, nil},
}

// decompress returns the archive inside, by what the bytes are and not by what a media type says:
// tools get the media type wrong.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, 128<<10)
	head, err := buffered.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading layer: %w", err)
	}
	for _, s := range signatures {
		if !bytes.HasPrefix(head, s.magic) {
			continue
		}
		if s.open == nil {
			return nil, fmt.Errorf("%w %s", ErrFormat, s.name)
		}
		plain, err := s.open(buffered)
		if err != nil {
			return nil, fmt.Errorf("reading layer: %w", err)
		}
		return drained{plain, buffered}, nil
	}
	return io.NopCloser(buffered), nil
}

// drained reads the compressed stream to its end after the archive's, so that whoever checks the
// compressed digest sees all of it.
type drained struct {
	io.ReadCloser
	rest io.Reader
}

func (d drained) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if _, rest := io.Copy(io.Discard, d.rest); rest != nil {
			return n, rest
		}
	}
	return n, err
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

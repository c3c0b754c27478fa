package h1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// kind is how a body's end is told.
type kind uint8

const (
	sized   kind = iota // by its length
	chunks              // by the last chunk
	endless             // by the end of the connection
)

// maxTrailer bounds the trailers' bytes.
const maxTrailer = 64 << 10

// Body is a response's body. It is read by Next alone.
type Body struct {
	// Trailer is what followed a chunked body, set once it has ended.
	Trailer http.Header

	c       *Conn
	kind    kind
	left    int64 // of a sized body or of the present chunk
	between bool  // a chunk's data was read, its line end was not
	ended   bool
}

// Scratch lends a buffer for Next.
func Scratch() *[]byte { return buffers.Get().(*[]byte) }

// Unscratch takes it back.
func Unscratch(b *[]byte) { buffers.Put(b) }

// Next returns some bytes of the body, valid until the next call, in scratch (if any) or elsewhere; at the
// clean end it returns io.EOF and no bytes. A connection that ends before the body does gives
// io.ErrUnexpectedEOF.
func (b *Body) Next(scratch []byte) ([]byte, error) {
	if b.ended {
		return nil, io.EOF
	}
	if b.kind == chunks && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return nil, err
		}
	}
	if b.ended || b.kind == sized && b.left == 0 {
		b.ended = true
		return nil, io.EOF
	}
	data, err := b.read(scratch)
	if b.kind != endless {
		b.left -= int64(len(data))
		b.between = b.kind == chunks && b.left == 0
	}
	switch {
	case len(data) > 0:
		return data, nil
	case b.kind == endless && errors.Is(err, io.EOF):
		b.ended = true
		return nil, io.EOF
	default:
		return nil, b.cut(err)
	}
}

// read returns what is buffered, or reads once.
func (b *Body) read(scratch []byte) ([]byte, error) {
	br := b.c.br
	if len(scratch) == 0 && br.Buffered() == 0 {
		if _, err := br.Peek(1); err != nil {
			return nil, err
		}
	}
	if n := br.Buffered(); n > 0 {
		if b.kind != endless {
			n = int(min(int64(n), b.left))
		}
		data, err := br.Peek(n)
		_, _ = br.Discard(n) // they were just peeked at
		return data, err
	}
	if b.kind != endless && b.left < int64(len(scratch)) {
		scratch = scratch[:b.left]
	}
	n, err := br.Read(scratch)
	return scratch[:n], err
}

// Ready reports whether Next can answer without waiting for the instance.
func (b *Body) Ready() bool {
	if b.ended || b.kind == sized && b.left == 0 {
		return true
	}
	n := b.c.br.Buffered()
	if n == 0 {
		return false
	}
	if b.kind != chunks || b.left > 0 {
		return true
	}
	ahead, _ := b.c.br.Peek(n) // they are buffered
	if b.between {
		ahead = bytes.TrimPrefix(ahead, []byte("\r\n"))
	}
	line, rest, found := bytes.Cut(ahead, []byte("\n"))
	if !found {
		return false
	}
	if len(line) > 0 && line[0] == '0' { // the last one: are its trailers here too?
		return bytes.HasPrefix(rest, []byte("\r\n")) || bytes.Contains(rest, []byte("\n\r\n"))
	}
	return len(rest) > 0
}

// nextChunk reads a chunk's size line, and the trailers after the last.
func (b *Body) nextChunk() error {
	if b.between {
		line, err := b.c.br.ReadSlice('\n')
		if err != nil {
			return b.cut(err)
		}
		if string(line) != "\r\n" {
			return fmt.Errorf("%w: chunk longer than it said", ErrMalformed)
		}
		b.between = false
	}
	line, err := b.c.br.ReadSlice('\n')
	if err != nil {
		return b.cut(err)
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	b.left = size
	if size > 0 {
		return nil
	}
	if err := b.readTrailer(); err != nil {
		return err
	}
	b.ended = true
	return nil
}

// chunkSize parses a size line strictly; extensions are ignored.
func chunkSize(line []byte) (int64, error) {
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	digits, _, _ := bytes.Cut(line, []byte(";"))
	digits = bytes.TrimRight(digits, " \t")
	if !ok || len(digits) == 0 || len(digits) > 15 {
		return 0, fmt.Errorf("%w: chunk size", ErrMalformed)
	}
	var n int64
	for _, d := range digits {
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'a' && d <= 'f':
			d -= 'a' - 10
		case d >= 'A' && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, fmt.Errorf("%w: chunk size", ErrMalformed)
		}
		n = n<<4 | int64(d)
	}
	return n, nil
}

func (b *Body) readTrailer() error {
	var block []byte
	for {
		line, err := b.c.br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return b.cut(err)
		}
		if err == nil && (len(block) == 0 || block[len(block)-1] == '\n') && string(line) == "\r\n" {
			break
		}
		if block = append(block, line...); len(block) > maxTrailer {
			return fmt.Errorf("%w: trailers above %d bytes", ErrMalformed, maxTrailer)
		}
	}
	if len(block) == 0 {
		return nil
	}
	b.Trailer = http.Header{}
	return parseFields(string(block), b.Trailer, bytes.Count(block, []byte("\n")))
}

// cut says that the body ended too early.
func (b *Body) cut(err error) error {
	b.c.keep = false
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading body: %w", err)
}

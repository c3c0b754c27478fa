package shim

import (
	"bytes"
	"io"
	"testing"
)

func TestProgramIsSealed(t *testing.T) {
	f, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := f.ReadAt(head, 0); err != nil || !bytes.Equal(head, []byte("\x7fELF")) {
		t.Errorf("starts with %q, %v", head, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("it can be written")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	st, err := f.Stat()
	if err != nil || st.Size() > 3<<20 {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
}

package wire

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	one, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	two, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close(); two.Close() })
	return one, two
}

func TestMessagesArriveInOrderWithTheirFiles(t *testing.T) {
	one, two := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	big := Request{Start: &Start{LogName: strings.Repeat("x", 1<<20)}}
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(one.Send(Request{Watch: true}), one.Send(big, int(w.Fd())), one.Send(Request{End: true}), w.Close(), one.Close())
	}()
	var got []Request
	for {
		var req Request
		fds, err := two.Recv(&req)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, req)
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "pipe")
			if _, err := f.WriteString("through"); err != nil {
				t.Error(err)
			}
			f.Close()
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Request{{Watch: true}, big, {End: true}}, got); diff != "" {
		t.Error(diff)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "through" {
		t.Errorf("read %q, %v", text, err)
	}
}

func TestLimitsHold(t *testing.T) {
	one, two := pair(t)
	if err := one.Send(Request{}, make([]int, MaxFDs+1)...); !errors.Is(err, ErrTooManyFDs) {
		t.Errorf("too many files: %v", err)
	}
	if err := one.Send(Request{Start: &Start{LogName: strings.Repeat("x", maxMessage)}}); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	go one.write([]byte{0xff, 0xff, 0xff, 0xff}, nil) //nolint:errcheck // the other side refuses
	if _, err := two.Recv(&Request{}); !errors.Is(err, ErrTooLong) {
		t.Errorf("a length out of bounds: %v", err)
	}
}

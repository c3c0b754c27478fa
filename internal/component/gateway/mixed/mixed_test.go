package mixed_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"ebb.dev/ebb/internal/component/gateway/mixed"
)

func TestConnectionsAreToldApartByTheirFirstByte(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := mixed.Split(ln, 100*time.Millisecond)
	say := func(words string) net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, words); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for words, from := range map[string]net.Listener{"\x16\x03\x01": l.TLS, "GET": l.Plain} {
		silent := say("") // holds nobody up, and is left in time
		say(words)
		conn, err := from.Accept()
		if err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, 3)
		if _, err := io.ReadFull(conn, heard); err != nil || string(heard) != words {
			t.Errorf("%q is heard as %q, %v", words, heard, err)
		}
		if _, ok := mixed.Bare(conn).(*net.TCPConn); !ok {
			t.Errorf("below it is a %T", mixed.Bare(conn))
		}
		conn.Close()
		if _, err := silent.Read(heard); !errors.Is(err, io.EOF) {
			t.Errorf("who says nothing hears %v", err)
		}
	}
	if err := l.TLS.Close(); err != nil {
		t.Fatal(err)
	}
	for _, part := range []net.Listener{l.TLS, l.Plain} {
		if _, err := part.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

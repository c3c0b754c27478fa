package relay_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// relayed opens a network whose egress is the relay.
func relayed(t *testing.T, i int) (*netnstest.World, *netns.Net) {
	t.Helper()
	w := netnstest.New(t)
	c := w.Config(i)
	c.Userspace = true
	return w, w.Open(t, c)
}

// digest serves TCP at addr: it reads to the end and then answers with what it read, hashed.
func digest(t *testing.T, at netnstest.Place, addr string) {
	t.Helper()
	l, err := at.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				h := sha256.New()
				if _, err := io.Copy(h, c); err == nil {
					_, _ = fmt.Fprintf(c, "%x", h.Sum(nil))
				}
			}()
		}
	}()
}

func TestRelayCarriesManyStreamsWhole(t *testing.T) {
	w, n := relayed(t, 71)
	addr := w.RemoteAddr.String() + ":80"
	digest(t, w.Remote, "0.0.0.0:80")
	data := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			part := data[:1+i*len(data)/100]
			c, err := n.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(c, bytes.NewReader(part)); err != nil {
				t.Error(err)
			}
			if half, ok := c.(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			got, err := io.ReadAll(c)
			if want := fmt.Sprintf("%x", sha256.Sum256(part)); err != nil || string(got) != want {
				t.Errorf("%d bytes arrived as %q, %v, want %q", len(part), got, err, want)
			}
		})
	}
	wg.Wait()
}

func TestRelayCarriesLargeDatagrams(t *testing.T) {
	w, n := relayed(t, 72)
	netnstest.ServePackets(t, w.Remote, "0.0.0.0:53", "remote")
	for _, size := range []int{0, 1, 1000, 1400} {
		text := strings.Repeat("x", size)
		got, err := netnstest.AskPacket(t.Context(), n, w.RemoteAddr.String()+":53", text)
		if want := "remote " + w.HostAddr.String() + " " + text; err != nil || got != want {
			t.Errorf("%d bytes: got %d bytes, %v, want %d", size, len(got), err, len(want))
		}
	}
}

func TestRelayTellsTheTruthAboutTheFarSide(t *testing.T) {
	w, n := relayed(t, 73)
	remote := w.RemoteAddr.String()
	if _, err := netnstest.Ask(t.Context(), n, remote+":81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: got %v, want refused", err)
	}
	l, err := w.Remote.Listen(t.Context(), "tcp", remote+":82")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1))
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a crash: the connection is reset, not finished
			}
			_ = c.Close()
		}
	}()
	c, err := n.DialContext(t.Context(), "tcp", remote+":82")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("far side crashed: got %v, want reset", err)
	}
}

func TestRelayKeepsPodsFromTheHostsLoopback(t *testing.T) {
	w, n := relayed(t, 74)
	netnstest.Serve(t, w.Host, "127.0.0.1:80", "private")
	for _, addr := range []string{"127.0.0.1:80", w.HostAddr.String() + ":80"} {
		if got, err := netnstest.Ask(t.Context(), n, addr); err == nil {
			t.Errorf("%s answers %q", addr, got)
		}
	}
}

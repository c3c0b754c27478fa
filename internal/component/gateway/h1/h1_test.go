package h1_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/component/gateway/h1"
)

// listen runs a server for one pool; serve handles each connection, which is then closed.
func listen(t *testing.T, serve func(n int, conn *net.TCPConn)) *h1.Pool {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for n := 1; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(n, conn.(*net.TCPConn))
			}()
		}
	}()
	p := h1.NewPool(netip.MustParseAddrPort(ln.Addr().String()), func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	})
	t.Cleanup(func() { p.Close() })
	return p
}

// answering is a server that gives the same answer to every request.
func answering(t *testing.T, answer string) *h1.Pool {
	return listen(t, func(_ int, conn *net.TCPConn) {
		br := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(conn, answer)
			if strings.Contains(answer, "close") || !strings.Contains(answer, "\r\n\r\n") || strings.HasPrefix(answer, "X") {
				return
			}
		}
	})
}

// exchange sends a request and reads all of the response.
func exchange(t *testing.T, p *h1.Pool, r h1.Request) (h1.Response, http.Header, string, error) {
	t.Helper()
	c, err := p.Get(t.Context(), time.Now(), r.Method == "GET")
	for range 10 { // a busy machine may take longer than the first patience
		if errors.Is(err, h1.ErrUnreachable) {
			c, err = p.Get(t.Context(), time.Now(), r.Method == "GET")
		}
	}
	if err != nil {
		return h1.Response{}, nil, "", err
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if r.Host == "" {
		r.Host, r.URI = "test", "/"
	}
	header := http.Header{}
	if err = c.Send(&r); err == nil {
		var resp h1.Response
		if resp, err = c.Receive(r.Method, header, nil); err == nil {
			var body strings.Builder
			scratch := make([]byte, 100)
			for err == nil {
				var data []byte
				data, err = resp.Body.Next(scratch)
				body.Write(data)
			}
			if errors.Is(err, io.EOF) {
				p.Done(c, time.Now())
				return resp, header, body.String(), nil
			}
		}
	}
	p.Discard(c)
	return h1.Response{}, header, "", err
}

func TestReceive(t *testing.T) {
	long := strings.Repeat("v", 10_000)
	cases := map[string]struct {
		answer string
		method string
		want   string // status, header and body; "malformed" or "cut" for errors
	}{
		"a sized body":           {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "GET", "200 map[Content-Length:[5]] hello"},
		"no body":                {"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", "GET", "204 map[X:[1]] "},
		"an answer to HEAD":      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", "200 map[Content-Length:[5]] "},
		"not modified":           {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "304 map[Content-Length:[5]] "},
		"chunks":                 {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", "GET", "200 map[] hello"},
		"chunks with trailers":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n1\r\nx\r\n0\r\nA: 1\r\nB: 2\r\n\r\n", "GET", "200 map[Trailer:[A]] x + map[A:[1] B:[2]]"},
		"until it closes":        {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", "GET", "200 map[] hello"},
		"HTTP/1.0":               {"HTTP/1.0 200 OK\r\nX: close\r\n\r\nhello", "GET", "200 map[X:[close]] hello"},
		"no reason":              {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET", "200 map[Content-Length:[0]] "},
		"repeated and odd names": {"HTTP/1.1 200 OK\r\nx-a: 1\r\nX-A:2 \r\nCONTENT-length: 0\r\n\r\n", "GET", "200 map[Content-Length:[0] X-A:[1 2]] "},
		"a folded line":          {"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 0\r\n\r\n", "GET", "200 map[Content-Length:[0] X:[a    b]] "},
		"a long value":           {"HTTP/1.1 200 OK\r\nX: " + long + "\r\nContent-Length: 0\r\n\r\n", "GET", "200 map[Content-Length:[0] X:[" + long + "]] "},
		"interim ones before":    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", "200 map[Content-Length:[0]] "},
		"hop-by-hop fields":      {"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", "GET", "200 map[Content-Length:[0]] "},
		"the same length twice":  {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "GET", "200 map[Content-Length:[1]] x"},
		"both framings":          {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "GET", "200 map[] x"},
		"two lengths":            {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "GET", "malformed"},
		"a list of lengths":      {"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx", "GET", "malformed"},
		"a signed length":        {"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx", "GET", "malformed"},
		"another coding":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", "GET", "malformed"},
		"two codings":            {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nx", "GET", "malformed"},
		"a name with a space":    {"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", "GET", "malformed"},
		"a line without a name":  {"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "GET", "malformed"},
		"a bare CR":              {"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "GET", "malformed"},
		"not HTTP":               {"SSH-2.0-OpenSSH\r\n\r\n", "GET", "malformed"},
		"a status of two digits": {"HTTP/1.1 20 OK\r\n\r\n", "GET", "malformed"},
		"HTTP/2 in clear":        {"HTTP/2.0 200 OK\r\n\r\n", "GET", "malformed"},
		"a header without end":   {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 300<<10), "GET", "malformed"},
		"too many fields":        {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: 1\r\n", 1001) + "\r\n", "GET", "malformed"},
		"only interim ones":      {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 40), "GET", "malformed"},
		"a chunk of bad size":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", "GET", "malformed"},
		"a chunk of no size":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n", "GET", "malformed"},
		"a chunk with a bare LF": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", "GET", "malformed"},
		"a chunk that is longer": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", "GET", "malformed"},
		"a chunk beyond reason":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx", "GET", "malformed"},
		"a body cut short":       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX: close\r\n\r\nhello", "GET", "cut"},
		"chunks cut short":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: close\r\n\r\n5\r\nhello\r\n", "GET", "cut"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			resp, header, body, err := exchange(t, answering(t, tc.answer), h1.Request{Method: tc.method})
			got := fmt.Sprint(resp.Status, " ", map[string][]string(header), " ", body)
			switch {
			case errors.Is(err, h1.ErrMalformed):
				got = "malformed"
			case errors.Is(err, io.ErrUnexpectedEOF):
				got = "cut"
			case err != nil:
				got = err.Error()
			case resp.Body.Trailer != nil:
				got += fmt.Sprint(" + ", map[string][]string(resp.Body.Trailer))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzReceive feeds answers of all kinds: none may panic, hang or yield more than was sent.
func FuzzReceive(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", true)
	f.Add("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false)
	f.Fuzz(func(t *testing.T, answer string, slow bool) {
		client, server := net.Pipe()
		go func() {
			go func() { _, _ = io.Copy(io.Discard, server) }()
			var src io.Reader = strings.NewReader(answer)
			if slow {
				src = iotest.OneByteReader(src)
			}
			_, _ = io.Copy(server, src)
			server.Close()
		}()
		p := h1.NewPool(netip.AddrPort{}, func(context.Context, netip.AddrPort) (net.Conn, error) { return client, nil })
		_, _, body, err := exchange(t, p, h1.Request{Method: "GET"})
		if err == nil && len(body) > len(answer) {
			t.Errorf("%d bytes out of %d", len(body), len(answer))
		}
	})
}

func TestSend(t *testing.T) {
	cases := map[string]struct {
		request h1.Request
		want    string
	}{
		"no body":      {h1.Request{Method: "GET", Header: http.Header{"A": {"1", "2"}}}, "GET / HTTP/1.1\r\nHost: test\r\nA: 1\r\nA: 2\r\n\r\n"},
		"empty body":   {h1.Request{Method: "POST"}, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"},
		"whole body":   {h1.Request{Method: "PUT", Whole: []byte("abc")}, "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"},
		"sized stream": {h1.Request{Method: "PUT", Stream: strings.NewReader("abc"), Length: 3}, "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"},
		"stream with trailers": {h1.Request{
			Method: "PUT", Stream: iotest.OneByteReader(strings.NewReader("ab")), Length: -1, Announce: "T",
			Trailer: func() http.Header { return http.Header{"T": {"1"}, "Content-Length": {"5"}} },
		}, "PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nT: 1\r\n\r\n"},
		"upgrade":                 {h1.Request{Method: "GET", Upgrade: "websocket"}, "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"a name nobody may write": {h1.Request{Method: "GET", Header: http.Header{"A: b\r\nC": {"1"}}}, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			p := listen(t, func(_ int, conn *net.TCPConn) {
				buf := make([]byte, len(tc.want))
				n, _ := io.ReadFull(conn, buf)
				got <- string(buf[:n])
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				_ = conn.CloseWrite()
				rest, _ := io.ReadAll(conn)
				got <- string(rest)
			})
			if _, _, _, err := exchange(t, p, tc.request); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, <-got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			p.Close()
			if rest := <-got; rest != "" {
				t.Errorf("then came %q", rest)
			}
		})
	}
}

func TestWhatWasSentWhenAConnectionEnds(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	cases := map[string]struct {
		serve func(n int, conn *net.TCPConn)
		wait  bool // until the server closed the kept connection
		want  error
	}{
		"it closed before": {func(n int, conn *net.TCPConn) {
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, ok)
		}, true, h1.ErrUnsent},
		"it read and closed": {func(n int, conn *net.TCPConn) {
			br := bufio.NewReader(conn)
			_, _ = http.ReadRequest(br)
			_, _ = io.WriteString(conn, ok)
			_, _ = http.ReadRequest(br)
		}, false, h1.ErrDied},
		"it read and reset": {func(n int, conn *net.TCPConn) {
			br := bufio.NewReader(conn)
			_, _ = http.ReadRequest(br)
			_, _ = io.WriteString(conn, ok)
			_, _ = http.ReadRequest(br)
			_ = conn.SetLinger(0)
		}, false, h1.ErrDied},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			p := listen(t, func(n int, conn *net.TCPConn) {
				tc.serve(n, conn)
				conn.Close()
				close(ended)
			})
			at := time.Now()
			c, err := p.Get(t.Context(), at, true)
			if err != nil {
				t.Fatal(err)
			}
			r := h1.Request{Method: "GET", URI: "/", Host: "test"}
			if err := c.Send(&r); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Receive("GET", http.Header{}, nil); err != nil {
				t.Fatal(err)
			}
			p.Done(c, at)
			if tc.wait {
				<-ended
			}
			again, err := p.Get(t.Context(), at, true) // not idle at all: nobody looks
			if err != nil || again != c {
				t.Fatalf("another connection: %v", err)
			}
			if err = again.Send(&r); err == nil {
				_, err = again.Receive("GET", http.Header{}, nil)
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			p.Discard(again)
		})
	}
}

func TestPoolKeepsAndExaminesConnections(t *testing.T) {
	p := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	now := time.Now()
	use := func(repeatable bool) bool {
		t.Helper()
		c, err := p.Get(t.Context(), now, repeatable)
		if err != nil {
			t.Fatal(err)
		}
		r := h1.Request{Method: "GET", URI: "/", Host: "test"}
		if err := c.Send(&r); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Receive("GET", http.Header{}, nil); err != nil {
			t.Fatal(err)
		}
		reused := c.Reused()
		p.Done(c, now)
		return reused
	}
	if use(true) {
		t.Error("the first connection was used before")
	}
	if !use(true) {
		t.Error("a request that may be repeated did not reuse the connection")
	}
	if use(false) {
		t.Error("one that may not reused a connection nobody knows to stay open")
	}
	for range 40 { // the instance proves that it keeps connections for 2.2 s
		now = now.Add(2200 * time.Millisecond)
		use(true)
	}
	for _, step := range []struct {
		idle time.Duration
		want bool
	}{{time.Millisecond, true}, {900 * time.Millisecond, true}, {1100 * time.Millisecond, false}, {time.Hour, false}} {
		now = now.Add(step.idle)
		if got := use(false); got != step.want {
			t.Errorf("idle for %v: reused = %v, want %v", step.idle, got, step.want)
		}
	}
}

func TestConnectingTakesGrowingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		p := h1.NewPool(netip.MustParseAddrPort("10.0.0.1:80"), func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			deadline, _ := ctx.Deadline()
			times = append(times, time.Until(deadline))
			<-ctx.Done()
			return nil, ctx.Err()
		})
		for range 8 {
			if _, err := p.Dial(t.Context()); !errors.Is(err, h1.ErrUnreachable) {
				t.Fatal(err)
			}
		}
		ms := time.Millisecond
		want := []time.Duration{20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, time.Second, time.Second}
		if diff := cmp.Diff(want, times); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestCheckTarget(t *testing.T) {
	for target, good := range map[[2]string]bool{
		{"GET", "/"}: true, {"PROPFIND", "/a?b=%20"}: true, {"GET", "/a b"}: false, {"GET", "/a\r\nX: y"}: false,
		{"G T", "/"}: false, {"", "/"}: false, {"GET", ""}: false, {"GET", "/\x7f"}: false,
	} {
		if err := h1.CheckTarget(target[0], target[1]); (err == nil) != good {
			t.Errorf("%q: %v", target, err)
		}
	}
}

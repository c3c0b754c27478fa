package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"ebb.dev/ebb/internal/domain/traffic"
)

// clients are the protocols a client may speak to the gateway.
func clients(t *testing.T) map[string]*http.Client {
	prior := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	one := &http.Transport{}
	t.Cleanup(func() { prior.CloseIdleConnections(); one.CloseIdleConnections() })
	return map[string]*http.Client{"HTTP/1.1": {Transport: one}, "HTTP/2.0": {Transport: prior}}
}

// serveAs runs an application that speaks HTTP/1.1 or, with h2c, HTTP/2 too.
func serveAs(t *testing.T, r *rig, h http.HandlerFunc) {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	r.add(s.URL)
}

// eachProtocol runs a test for all pairs of the client's and the application's protocol.
func eachProtocol(t *testing.T, h http.HandlerFunc, test func(t *testing.T, r *rig, c *http.Client)) {
	for from := range map[string]bool{"HTTP/1.1": true, "HTTP/2.0": true} {
		for to, settings := range map[string]traffic.Settings{"HTTP/1.1": {}, "HTTP/2.0": {H2C: true}} {
			t.Run(from+" to "+to, func(t *testing.T) {
				settings.Timeout = 10 * time.Second
				r := newRig(t, settings)
				serveAs(t, r, h)
				test(t, r, clients(t)[from])
			})
		}
	}
}

func TestForwardsRequestAndResponse(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	app := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("application reads: %v", err)
		}
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %d", r.Method, r.RequestURI, len(body)))
		if r.URL.Path == "/empty" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = w.Write(body)
	}
	cases := map[string]struct {
		method, path string
		body         []byte
		chunked      bool
		want         string
		wantStatus   int
	}{
		"without a body":         {"GET", "/a%2Fb?c=d&e", nil, false, "GET /a%2Fb?c=d&e 0", 200},
		"with a small body":      {"POST", "/", []byte("hello"), false, "POST / 5", 200},
		"with a medium body":     {"POST", "/", big[:60<<10], false, "POST / 61440", 200},
		"with a big body":        {"PUT", "/", big, false, "PUT / 1048576", 200},
		"with a chunked body":    {"POST", "/", big[:100000], true, "POST / 100000", 200},
		"with an empty answer":   {"DELETE", "/empty", nil, false, "DELETE /empty 0", 204},
		"with a head only":       {"HEAD", "/", nil, false, "HEAD / 0", 200},
		"with an unusual method": {"PROPFIND", "/x", nil, false, "PROPFIND /x 0", 200},
	}
	eachProtocol(t, app, func(t *testing.T, r *rig, c *http.Client) {
		for name, tc := range cases {
			t.Run(name, func(t *testing.T) {
				req := r.request(tc.method, tc.path, "")
				req.Body, req.ContentLength = http.NoBody, 0
				if tc.body != nil {
					req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(tc.body)), int64(len(tc.body))
				}
				if tc.chunked {
					req.ContentLength = -1
				}
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != tc.wantStatus || resp.Header.Get("X-Seen") != tc.want {
					t.Errorf("got %d, seen %q, want %d, %q", resp.StatusCode, resp.Header.Get("X-Seen"), tc.wantStatus, tc.want)
				}
				if tc.method != "HEAD" && !bytes.Equal(got, tc.body) {
					t.Errorf("body of %d bytes came back as %d", len(tc.body), len(got))
				}
			})
		}
	})
}

func TestForwardsTrailersBothWays(t *testing.T) {
	app := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte("body"))
		w.(http.Flusher).Flush()
		w.Header().Set("X-Announced", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Surprise", "yes")
	}
	eachProtocol(t, app, func(t *testing.T, r *rig, c *http.Client) {
		req := r.request("POST", "/", "")
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader("abc")), -1
		req.Trailer = http.Header{"X-Sum": {"900150983"}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		want := http.Header{"X-Announced": {"900150983"}, "X-Surprise": {"yes"}}
		if diff := cmp.Diff(want, resp.Trailer); diff != "" {
			t.Errorf("trailers (-want +got):\n%s", diff)
		}
	})
}

func TestForwardsTrailersAfterAShortBody(t *testing.T) {
	app := func(w http.ResponseWriter, _ *http.Request) { // over HTTP/2 this gets a Content-Length too
		w.Header().Set("Trailer", "X-End")
		_, _ = w.Write([]byte("body"))
		w.Header().Set("X-End", "bye")
	}
	eachProtocol(t, app, func(t *testing.T, r *rig, c *http.Client) {
		resp, err := c.Do(r.request("GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "body" || resp.Trailer.Get("X-End") != "bye" {
			t.Errorf("body %q, trailer %v, %v", body, resp.Trailer, err)
		}
	})
}

func TestStreamsEveryWriteAtOnce(t *testing.T) {
	next := make(chan struct{})
	app := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for i := range 3 {
			<-next
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
	}
	eachProtocol(t, app, func(t *testing.T, r *rig, c *http.Client) {
		resp, err := c.Do(r.request("GET", "/", "")) // returns before anything was written
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		br := bufio.NewReader(resp.Body)
		for i := range 3 {
			next <- struct{}{}
			line, err := br.ReadString('\n')
			if want := fmt.Sprintf("data: %d\n", i); err != nil || line != want {
				t.Fatalf("event %d: %q, %v", i, line, err)
			}
			_, _ = br.ReadString('\n')
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

func TestStreamsBothWaysAtOnce(t *testing.T) {
	app := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, strings.ToUpper(line))
			w.(http.Flusher).Flush()
		}
	}
	eachProtocol(t, app, func(t *testing.T, r *rig, c *http.Client) {
		pr, pw := io.Pipe()
		req := r.request("POST", "/", "")
		req.Body, req.ContentLength = pr, -1
		go func() { _, _ = io.WriteString(pw, "one\n") }()
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		br := bufio.NewReader(resp.Body)
		for _, word := range []string{"one", "two", "three"} {
			if word != "one" {
				_, _ = io.WriteString(pw, word+"\n")
			}
			if got, err := br.ReadString('\n'); got != strings.ToUpper(word)+"\n" {
				t.Fatalf("sent %q, got %q, %v", word, got, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
			t.Errorf("end: %q, %v", rest, err)
		}
	})
}

func TestPassesOnEarlyHints(t *testing.T) {
	app := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Final", "1")
		_, _ = w.Write([]byte("done"))
	}
	eachProtocol(t, app, func(t *testing.T, r *rig, c *http.Client) {
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link"), h.Get("X-Final")))
			return nil
		}}
		req := r.request("GET", "/", "")
		resp, err := c.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if diff := cmp.Diff([]string{"103 </style.css>; rel=preload"}, hints); diff != "" {
			t.Errorf("hints (-want +got):\n%s", diff)
		}
		if resp.StatusCode != 200 || resp.Header.Get("X-Final") != "1" {
			t.Errorf("final response: %d %v", resp.StatusCode, resp.Header)
		}
	})
}

func TestWaitsForContinue(t *testing.T) {
	read := make(chan string, 1)
	r := newRig(t, traffic.Settings{})
	r.serve(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		body, _ := io.ReadAll(req.Body)
		read <- string(body)
	})
	t.Run("an application that wants the body", func(t *testing.T) {
		conn := r.dial()
		br := bufio.NewReader(conn)
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", host)
		line, err := br.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
			t.Fatalf("got %q, %v", line, err)
		}
		_, _ = br.ReadString('\n')
		_, _ = io.WriteString(conn, "hello")
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got %v, %v", resp, err)
		}
		if got := <-read; got != "hello" {
			t.Errorf("application read %q", got)
		}
	})
	t.Run("an application that refuses it", func(t *testing.T) {
		conn := r.dial()
		fmt.Fprintf(conn, "POST /refuse HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", host)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("got %v, %v", resp, err)
		}
	})
}

func TestWebSocket(t *testing.T) {
	r := newRig(t, traffic.Settings{Timeout: 10 * time.Second})
	up := websocket.Upgrader{}
	r.serve(func(w http.ResponseWriter, req *http.Request) {
		ws, err := up.Upgrade(w, req, nil)
		if err != nil {
			t.Errorf("application: %v", err)
			return
		}
		defer ws.Close()
		_ = ws.WriteMessage(websocket.TextMessage, []byte("welcome"))
		for {
			kind, data, err := ws.ReadMessage()
			if err != nil {
				return
			}
			_ = ws.WriteMessage(kind, data)
		}
	})
	ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.addr+"/chat", http.Header{"Host": {host}})
	if err != nil {
		t.Fatalf("dialling: %v, %v", err, resp)
	}
	defer ws.Close()
	if _, got, err := ws.ReadMessage(); err != nil || string(got) != "welcome" {
		t.Fatalf("got %q, %v", got, err)
	}
	for _, size := range []int{1, 1000, 200_000} {
		sent := bytes.Repeat([]byte("x"), size)
		if err := ws.WriteMessage(websocket.BinaryMessage, sent); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.ReadMessage(); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("echo of %d bytes: %d, %v", size, len(got), err)
		}
	}
	if n := r.book.Meter(rev).InFlight(); n != 1 {
		t.Errorf("in flight = %d, want the WebSocket", n)
	}
}

func TestUpgradesToH2C(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	r.serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	conn := r.dial()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", host)
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, br)
	_ = framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := frame.(*http2.DataFrame); ok && len(data.Data()) > 0 {
			if string(data.Data()) != "hello" || data.StreamID != 1 {
				t.Errorf("got %q on stream %d", data.Data(), data.StreamID)
			}
			return
		}
	}
}

func TestGRPC(t *testing.T) {
	r := newRig(t, traffic.Settings{H2C: true, Timeout: 10 * time.Second})
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "1"))
		return h(ctx, req)
	}))
	status := health.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, status)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(srv.Stop)
	r.add("http://" + ln.Addr().String())

	conn, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithAuthority(host), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)

	var trailer metadata.MD
	got, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.Trailer(&trailer))
	if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("Check: %v, %v", got, err)
	}
	if len(trailer.Get("x-trailer")) != 1 {
		t.Errorf("trailer = %v", trailer)
	}
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "none"}); err == nil {
		t.Error("an unknown service is healthy")
	}
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		got, err := watch.Recv()
		if err != nil || got.GetStatus() != want {
			t.Fatalf("Watch: %v, %v, want %v", got, err, want)
		}
		status.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	cancel()
	waitFor(t, "the cancelled stream to end", func() bool { return r.book.Meter(rev).InFlight() == 0 })
}

// waitFor polls until ok or the test's patience ends.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s took too long", what)
		}
		<-tick.C
	}
}

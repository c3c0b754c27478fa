package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"ebb.dev/ebb/internal/domain/traffic"
)

func TestEarlyAnswerToAnUpload(t *testing.T) {
	refuse := "HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 3\r\n\r\nbig"
	cases := map[string]func(conn net.Conn){
		"and the instance goes on reading": func(conn net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, refuse)
			_, _ = io.Copy(io.Discard, conn)
		},
		"and the instance stops reading": func(conn net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, refuse)
			_ = conn.(*net.TCPConn).CloseWrite()
			<-time.After(50 * time.Millisecond)
		},
	}
	for name, serve := range cases {
		for _, sends := range []string{"all", "a part"} {
			t.Run(name+", the client sends "+sends, func(t *testing.T) {
				r := newRig(t, traffic.Settings{})
				r.add(raw(t, func(_ int64, conn net.Conn) { serve(conn) }))
				conn := r.dial()
				const size = 8 << 20
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\nstart", host, size)
				if sends == "all" {
					go func() { _, _ = io.WriteString(conn, strings.Repeat("x", size-5)) }()
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || resp.StatusCode != 413 {
					t.Fatalf("got %v, %v", resp, err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "big" {
					t.Errorf("body %q, %v", body, err)
				}
				waitFor(t, "the slot to be free", func() bool { return r.book.Meter(rev).InFlight() == 0 })
			})
		}
	}
}

func TestClientThatStopsSendingCancelsTheUpload(t *testing.T) {
	for name, h2c := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{H2C: h2c})
			failed := make(chan error, 1)
			serveAs(t, r, func(_ http.ResponseWriter, req *http.Request) {
				_, err := io.Copy(io.Discard, req.Body)
				failed <- err
			})
			conn := r.dial()
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\n\r\nstart", host)
			waitFor(t, "the request", func() bool { return r.book.Meter(rev).InFlight() == 1 })
			conn.Close()
			if err := <-failed; err == nil {
				t.Error("the application took half a body for a whole one")
			}
			waitFor(t, "the slot to be free", func() bool { return r.book.Meter(rev).InFlight() == 0 })
		})
	}
}

func TestTunnelsDoNotHoldUpDraining(t *testing.T) {
	r := newRig(t, traffic.Settings{ContainerConcurrency: 2})
	up := websocket.Upgrader{}
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ws, err := up.Upgrade(w, req, nil)
		if err != nil {
			t.Errorf("application: %v", err)
			return
		}
		defer ws.Close()
		<-stop // as on SIGTERM: say good-bye and leave
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "bye"), time.Now().Add(time.Second))
	}))
	t.Cleanup(s.Close)
	id := r.add(s.URL)
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.addr, http.Header{"Host": {host}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := r.g.Drain(ctx, id); err != nil {
		t.Fatalf("Drain: %v", err)
	}
	close(stop)
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the client saw %v", err)
	}
}

func TestUpgradeThatIsRefused(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	r.serve(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	_, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.addr, http.Header{"Host": {host}})
	if err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, %v", resp, err)
	}
	waitFor(t, "the slot to be free", func() bool { return r.book.Meter(rev).InFlight() == 0 })
}

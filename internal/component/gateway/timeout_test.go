package gateway_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"ebb.dev/ebb/internal/domain/traffic"
)

func TestTimeouts(t *testing.T) {
	const short, long = 500 * time.Millisecond, 10 * time.Second
	// The application waits before its response, before its body and before its body's end.
	stall := func(where string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			at := func(place string) {
				if place == where {
					<-req.Context().Done()
				}
			}
			_, _ = io.Copy(io.Discard, req.Body)
			at("before the response")
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "start ")
			w.(http.Flusher).Flush()
			for range 4 {
				<-time.After(short / 6)
				_, _ = io.WriteString(w, "tick ")
				w.(http.Flusher).Flush()
			}
			at("during the body")
			_, _ = io.WriteString(w, "end")
		}
	}
	const whole = "start tick tick tick tick end"
	cases := map[string]struct {
		settings traffic.Settings
		where    string
		status   int
		body     string
	}{
		"within all":                {traffic.Settings{Timeout: long, ResponseStartTimeout: long, IdleTimeout: long}, "", 200, whole},
		"total before the response": {traffic.Settings{Timeout: short}, "before the response", 504, "request timeout\n"},
		"total during the body":     {traffic.Settings{Timeout: 3 * short}, "during the body", 200, "start tick tick tick tick "},
		"start before the response": {traffic.Settings{Timeout: long, ResponseStartTimeout: short}, "before the response", 504, "request timeout\n"},
		"start is over once begun":  {traffic.Settings{Timeout: long, ResponseStartTimeout: short}, "", 200, whole},
		"idle before the response":  {traffic.Settings{Timeout: long, IdleTimeout: short}, "before the response", 504, "request timeout\n"},
		"idle during the body":      {traffic.Settings{Timeout: long, IdleTimeout: short}, "during the body", 200, "start tick tick tick tick "},
		"not idle while bytes move": {traffic.Settings{IdleTimeout: short}, "", 200, whole},
	}
	for name, tc := range cases {
		for proto, h2c := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
			for _, method := range []string{"GET", "POST"} {
				t.Run(name+" "+proto+" "+method, func(t *testing.T) {
					t.Parallel()
					settings := tc.settings
					settings.H2C = h2c
					r := newRig(t, settings)
					serveAs(t, r, stall(tc.where))
					status, body, err := get(r.request(method, "/", "body"))
					if err != nil || status != tc.status || body != tc.body {
						t.Errorf("got %d %q, %v, want %d %q", status, body, err, tc.status, tc.body)
					}
					waitFor(t, "the slot to be free", func() bool { return r.book.Meter(rev).InFlight() == 0 })
				})
			}
		}
	}
}

func TestConnectionIsUsableAfterATimeout(t *testing.T) {
	r := newRig(t, traffic.Settings{Timeout: 300 * time.Millisecond})
	r.serve(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			<-req.Context().Done()
		}
		_, _ = io.WriteString(w, "ok")
	})
	conn := r.dial()
	br := bufio.NewReader(conn)
	for _, want := range []struct {
		path   string
		status int
	}{{"/slow", 504}, {"/fast", 200}, {"/slow", 504}, {"/fast", 200}} {
		_, _ = io.WriteString(conn, "GET "+want.path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != want.status {
			t.Fatalf("%s: %v, %v", want.path, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}

func TestWebSocketTimeouts(t *testing.T) {
	const short = 400 * time.Millisecond
	up := websocket.Upgrader{}
	cases := map[string]struct {
		settings traffic.Settings
		speaks   bool // the application, after the switch
		ends     bool
	}{
		"total":                  {traffic.Settings{Timeout: short}, true, true},
		"silent instance":        {traffic.Settings{Timeout: 10 * time.Second, ResponseStartTimeout: short}, false, true},
		"an instance that spoke": {traffic.Settings{Timeout: 10 * time.Second, ResponseStartTimeout: short}, true, false},
		"idle":                   {traffic.Settings{Timeout: 10 * time.Second, IdleTimeout: short}, true, true},
		"without timeouts":       {traffic.Settings{}, true, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tc.settings)
			r.serve(func(w http.ResponseWriter, req *http.Request) {
				ws, err := up.Upgrade(w, req, nil)
				if err != nil {
					t.Errorf("application: %v", err)
					return
				}
				defer ws.Close()
				if tc.speaks {
					_ = ws.WriteMessage(websocket.TextMessage, []byte("hello"))
				}
				_, _, _ = ws.ReadMessage() // until it is closed
			})
			ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.addr, http.Header{"Host": {host}})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			if tc.speaks {
				if _, _, err := ws.ReadMessage(); err != nil {
					t.Fatal(err)
				}
			}
			_ = ws.SetReadDeadline(time.Now().Add(5 * short))
			_, _, err = ws.ReadMessage()
			if ended := err != nil && !strings.Contains(err.Error(), "i/o timeout"); ended != tc.ends {
				t.Errorf("ended = %v (%v), want %v", ended, err, tc.ends)
			}
		})
	}
}

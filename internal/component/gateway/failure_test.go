package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
)

// raw runs an application that treats its connections as it likes.
func raw(t testing.TB, serve func(n int64, conn net.Conn)) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var n atomic.Int64
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(n.Add(1), conn)
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// get sends a request and returns status and body.
func get(req *http.Request) (int, string, error) {
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestNoRequestIsLostWhenAnInstanceCannotBeUsed(t *testing.T) {
	cases := map[string]struct {
		method string
		serve  func(n int64, conn net.Conn)
		want   int
	}{
		"GET to one that closes without an answer": {"GET", func(_ int64, conn net.Conn) { _, _ = bufio.NewReader(conn).ReadString('\n') }, 200},
		"PUT to one that closes without an answer": {"PUT", func(_ int64, conn net.Conn) { _, _ = bufio.NewReader(conn).ReadString('\n') }, 200},
		// Its bytes reached an instance: only the client can know whether to repeat it.
		"POST to one that closes without an answer": {"POST", func(_ int64, conn net.Conn) { _, _ = bufio.NewReader(conn).ReadString('\n') }, 502},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{ContainerConcurrency: 1})
			r.add(raw(t, tc.serve))
			good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
			t.Cleanup(good.Close)
			r.add(good.URL)
			status, body, err := get(r.request(tc.method, "/", "body"))
			if err != nil || status != tc.want {
				t.Errorf("got %d %q, %v, want %d", status, body, err, tc.want)
			}
		})
	}
}

func TestWaitsForARefusingInstance(t *testing.T) {
	for _, method := range []string{"GET", "POST", "GET by HTTP/2", "POST by HTTP/2"} {
		t.Run(method, func(t *testing.T) {
			method, proto, _ := strings.Cut(method, " by ")
			r := newRig(t, traffic.Settings{H2C: proto != ""})
			ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := ln.Addr().String()
			ln.Close()
			r.add("http://" + addr) // said to be ready, refuses connections
			result := make(chan string, 1)
			go func() {
				status, body, err := get(r.request(method, "/", "x"))
				result <- fmt.Sprint(status, " ", body, " ", err)
			}()
			waitFor(t, "the request to wait", func() bool { return r.sink.wakes.Load() > 0 })
			again, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
			if err != nil {
				t.Skipf("the port was taken by another program: %v", err)
			}
			srv := &http.Server{
				Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }),
				Protocols: &http.Protocols{},
			}
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true)
			go func() { _ = srv.Serve(again) }()
			t.Cleanup(func() { srv.Close() })
			if got := <-result; got != "200 ok <nil>" {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestServersThatCloseConnectionsLoseNothing(t *testing.T) {
	var handled sync.Map // path -> times
	answer := func(conn net.Conn, br *bufio.Reader) bool {
		req, err := http.ReadRequest(br)
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, req.Body)
		n, _ := handled.LoadOrStore(req.URL.Path, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		_, err = io.WriteString(conn, okResponse)
		return err == nil
	}
	cases := map[string]func(n int64, conn net.Conn){
		"after each response, unannounced": func(_ int64, conn net.Conn) { answer(conn, bufio.NewReader(conn)) },
		"after some responses, unannounced": func(_ int64, conn net.Conn) {
			br := bufio.NewReader(conn)
			for range 3 {
				answer(conn, br)
			}
		},
		"after a short time without requests": func(_ int64, conn net.Conn) {
			br := bufio.NewReader(conn)
			for {
				_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				if !answer(conn, br) {
					return
				}
			}
		},
	}
	for name, serve := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{})
			r.add(raw(t, serve))
			tr := &http.Transport{MaxIdleConnsPerHost: 8}
			defer tr.CloseIdleConnections()
			var wg sync.WaitGroup
			for worker := range 8 {
				wg.Go(func() {
					for i := range 100 {
						method := []string{"GET", "POST"}[i%2]
						path := fmt.Sprintf("/%s/%d/%d", strings.ReplaceAll(name, " ", "-"), worker, i)
						resp, err := tr.RoundTrip(r.request(method, path, strings.Repeat("b", i%2*10)))
						if err != nil || resp.StatusCode != 200 {
							t.Errorf("%s %s: %v, %v", method, path, resp, err)
							return
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						if n, ok := handled.Load(path); method == "POST" && (!ok || n.(*atomic.Int64).Load() != 1) {
							t.Errorf("%s was not handled exactly once", path)
						}
						if i%20 == 19 {
							<-time.After(time.Duration(190+3*worker) * time.Millisecond) // let connections grow old
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestHoldsRequestsWhileARevisionWakes(t *testing.T) {
	r := newRig(t, traffic.Settings{ContainerConcurrency: 2})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "awake") }))
	t.Cleanup(s.Close)
	var once sync.Once
	wake := func() { once.Do(func() { time.AfterFunc(20*time.Millisecond, func() { r.add(s.URL) }) }) }
	r.sink.onWake.Store(&wake)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			method := []string{"GET", "POST"}[i%2]
			if status, body, err := get(r.request(method, "/", "data")); err != nil || status != 200 || body != "awake" {
				t.Errorf("got %d %q, %v", status, body, err)
			}
		})
	}
	wg.Wait()
	if n := r.sink.actives.Load(); n == 0 {
		t.Error("nobody was told of the first request")
	}
	waitFor(t, "the meter to empty", func() bool { return r.book.Meter(rev).InFlight() == 0 })
}

func TestRequestsOfARevisionThatGoesAwayFindTheNext(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	results := make(chan string, 3)
	for _, method := range []string{"GET", "POST", "PUT"} {
		go func() {
			status, body, err := get(r.request(method, "/", "data"))
			results <- fmt.Sprint(status, " ", body, " ", err)
		}()
	}
	waitFor(t, "the requests to wait", func() bool { return r.sink.wakes.Load() >= 3 })
	next := types.NamespacedName{Namespace: "default", Name: "hello-00002"}
	addr := startApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "next") })
	r.fleet.Observe(fleet.Local, fleet.Instance{ID: "next", Revision: next, Address: addr, Ready: true})
	table, err := traffic.Build([]traffic.Rule{{Host: host, Targets: []traffic.Target{{Revision: next, Percent: 100}}}},
		map[types.NamespacedName]traffic.Settings{next: {}})
	if err != nil {
		t.Fatal(err)
	}
	r.g.SetTable(table)
	for range 3 {
		if got := <-results; got != "200 next <nil>" {
			t.Errorf("got %s", got)
		}
	}
	waitFor(t, "the meters to empty", func() bool {
		return r.book.Meter(rev).InFlight() == 0 && r.book.Meter(next).InFlight() == 0
	})
	if status, body, _ := get(r.request("GET", "/", "")); status != 200 {
		t.Errorf("afterwards: %d %q", status, body)
	}
}

func TestRequestsOfARouteThatGoesAwayAreToldSo(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	result := make(chan int, 1)
	go func() {
		status, _, _ := get(r.request("GET", "/", ""))
		result <- status
	}()
	waitFor(t, "the request to wait", func() bool { return r.sink.wakes.Load() > 0 })
	r.g.SetTable(&traffic.Table{})
	if got := <-result; got != http.StatusNotFound {
		t.Errorf("got %d", got)
	}
}

func TestClientThatLeavesLeavesTheQueue(t *testing.T) {
	cases := map[string]string{
		"GET":                        "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"POST with a small body":     "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 2\r\n\r\nok",
		"POST with an unread body":   "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 200000\r\n\r\nstart",
		"POST with a chunked body":   "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"POST that waits to send it": "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
	}
	for name, request := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{})
			conn := r.dial()
			_, _ = io.WriteString(conn, request)
			waitFor(t, "the request to wait", func() bool { return r.sink.wakes.Load() > 0 })
			conn.Close()
			waitFor(t, "it to leave", func() bool { return r.book.Meter(rev).InFlight() == 0 })
		})
	}
}

func TestClientThatLeavesCancelsTheInstancesWork(t *testing.T) {
	for name, settings := range map[string]traffic.Settings{"HTTP/1.1": {}, "HTTP/2": {H2C: true}} {
		for _, phase := range []string{"before the response", "during the response"} {
			t.Run(name+" "+phase, func(t *testing.T) {
				r := newRig(t, settings)
				began, cancelled := make(chan struct{}), make(chan struct{})
				serveAs(t, r, func(w http.ResponseWriter, req *http.Request) {
					if phase == "during the response" {
						_, _ = io.WriteString(w, "some")
						w.(http.Flusher).Flush()
					}
					close(began)
					<-req.Context().Done()
					close(cancelled)
				})
				ctx, cancel := context.WithCancel(t.Context())
				go func() { _, _, _ = get(r.request("GET", "/", "").WithContext(ctx)) }()
				<-began
				cancel()
				<-cancelled
				waitFor(t, "the slot to be free", func() bool { return r.book.Meter(rev).InFlight() == 0 })
			})
		}
	}
}

func TestClientSeesAResponseThatBreaksOff(t *testing.T) {
	cases := map[string]string{
		"in a sized body":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
		"in a chunked body": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
		"in a bad chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npartial\r\n0\r\n\r\n",
	}
	for name, response := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{})
			r.add(raw(t, func(_ int64, conn net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, response)
			}))
			status, body, err := get(r.request("GET", "/", ""))
			if err == nil {
				t.Errorf("got a whole response: %d %q", status, body)
			}
		})
	}
}

func TestRefusesWhenTheQueueIsFull(t *testing.T) {
	r := newRig(t, traffic.Settings{}, depth(2))
	for range 2 {
		_, _ = io.WriteString(r.dial(), "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	}
	waitFor(t, "two requests to wait", func() bool { return r.sink.wakes.Load() == 2 })
	resp, err := http.DefaultTransport.RoundTrip(r.request("GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("X-Ebb-Reason") != "QueueFull" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestGivesUpWaitingForAnInstance(t *testing.T) {
	r := newRig(t, traffic.Settings{}, activation(30*time.Millisecond))
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/", "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("X-Ebb-Reason") != "NoInstance" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestContainerConcurrencyIsHard(t *testing.T) {
	for _, limit := range []int{1, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			r := newRig(t, traffic.Settings{ContainerConcurrency: limit})
			var worst atomic.Int64
			for range 2 {
				var now atomic.Int64
				r.serve(func(w http.ResponseWriter, _ *http.Request) {
					n := now.Add(1)
					defer now.Add(-1)
					for old := worst.Load(); n > old && !worst.CompareAndSwap(old, n); old = worst.Load() {
					}
					<-time.After(2 * time.Millisecond)
					_, _ = io.WriteString(w, "ok")
				})
			}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					for range 10 {
						if status, _, err := get(r.request("GET", "/", "")); err != nil || status != 200 {
							t.Errorf("got %d, %v", status, err)
						}
					}
				})
			}
			wg.Wait()
			if got := worst.Load(); got != int64(limit) {
				t.Errorf("%d requests at once in an instance, want at most and at times %d", got, limit)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	r := newRig(t, traffic.Settings{ContainerConcurrency: 1})
	enter, leave := make(chan string, 10), make(chan struct{})
	app := func(name string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			enter <- name
			<-leave
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	old := r.add(app("old"))
	results := make(chan string, 2)
	send := func() {
		status, body, err := get(r.request("POST", "/", ""))
		results <- fmt.Sprint(status, " ", body, " ", err)
	}
	go send()
	if got := <-enter; got != "old" {
		t.Fatalf("the request went to %s", got)
	}
	go send() // waits: the only slot is taken
	waitFor(t, "the second to wait", func() bool { return r.sink.wakes.Load() > 0 })

	soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.g.Drain(soon, old); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain with a request in flight: %v", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- r.g.Drain(t.Context(), old) }()
	leave <- struct{}{}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if got := <-results; got != "200 old <nil>" {
		t.Errorf("the request in flight got %s", got)
	}
	r.add(app("new"))
	if got := <-enter; got != "new" {
		t.Errorf("the waiting request went to %s", got)
	}
	leave <- struct{}{}
	if got := <-results; got != "200 new <nil>" {
		t.Errorf("the waiting request got %s", got)
	}
	if err := r.g.Drain(t.Context(), "nobody"); err != nil {
		t.Errorf("Drain of an unknown instance: %v", err)
	}
}

func TestShutdownFinishesRequestsInFlight(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	began, leave := make(chan struct{}), make(chan struct{})
	r.serve(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-leave
		_, _ = io.WriteString(w, "done")
	})
	result := make(chan string, 1)
	go func() {
		status, body, err := get(r.request("GET", "/", ""))
		result <- fmt.Sprint(status, " ", body, " ", err)
	}()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- r.g.Shutdown(t.Context()) }()
	waitFor(t, "the listener to close", func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(leave)
	if got := <-result; got != "200 done <nil>" {
		t.Errorf("got %s", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

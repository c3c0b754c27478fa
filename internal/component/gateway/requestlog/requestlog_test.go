package requestlog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"ebb.dev/ebb/internal/component/gateway/requestlog"
)

// input is one request that hello answered.
func input(t *testing.T, target string) *requestlog.Input {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("hello"))
	r.Header.Set("User-Agent", `it's "me"`)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	return &requestlog.Input{
		Request: r, Response: &requestlog.Response{Code: 201, Size: 12, Latency: 0.25},
		Revision: &requestlog.Revision{
			Name: "hello-00001", Namespace: "default", Service: "hello", Configuration: "hello", PodName: "hello-x", PodIP: "10.1.0.2",
		},
		TraceID: requestlog.TraceID(r.Header),
	}
}

// logged is what a log with those settings writes of the inputs.
func logged(t *testing.T, s requestlog.Settings, inputs ...*requestlog.Input) []string {
	t.Helper()
	var lines []string
	l := requestlog.New(func(line requestlog.Line) { lines = append(lines, string(line.Text)) }, nil)
	if err := l.Set(s); err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		if l.Wants(in.Request.Header) {
			l.Add(in)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ended); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestTemplates(t *testing.T) {
	cases := map[string]struct{ template, want string }{
		"upstream's names": {
			"{{.Request.Method}} {{.Request.URL.Path}} {{.Response.Code}} {{.Response.Size}} {{.Response.Latency}} " +
				"{{.Revision.Name}} {{.Revision.Namespace}} {{.Revision.Service}} {{.Revision.Configuration}} {{.Revision.PodName}} {{.Revision.PodIP}} {{.TraceID}}",
			"POST /a 201 12 0.25 hello-00001 default hello hello hello-x 10.1.0.2 0af7651916cd43dd8448eb211c80319c",
		},
		"functions and headers": {`{{js .Request.UserAgent}} {{index .Request.Header "User-Agent"}}`, `it\'s \"me\" [it's "me"]`},
		"one end of line":       {"{{.Response.Code}}\n", "201"},
		"what is not there": {
			"{{.Nothing}}", "Invalid request log template: method: POST, response code: 201, latency: 0.25, url: http://hello/a?b=c",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff([]string{c.want}, logged(t, requestlog.Settings{On: true, Template: c.template}, input(t, "http://hello/a?b=c"))); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
	if err := requestlog.New(nil, nil).Set(requestlog.Settings{On: true, Template: "{{"}); err == nil {
		t.Error("a broken template is taken")
	}
}

func TestStructuredLines(t *testing.T) {
	in := input(t, `http://hello/a?b='"`)
	in.Request.RequestURI = `/a?b='"`
	lines := logged(t, requestlog.Settings{On: true}, in)
	if len(lines) != 1 {
		t.Fatalf("lines: %q", lines)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatalf("%v: %s", err, lines[0])
	}
	if got["time"] == nil {
		t.Error("no time")
	}
	delete(got, "time")
	want := map[string]any{
		"traceId": "0af7651916cd43dd8448eb211c80319c",
		"httpRequest": map[string]any{
			"requestMethod": "POST", "requestUrl": `/a?b='"`, "requestSize": "5", "status": 201.0, "responseSize": "12",
			"userAgent": `it's "me"`, "remoteIp": in.Request.RemoteAddr, "serverIp": "10.1.0.2", "referer": "", "latency": "0.25s",
			"protocol": "HTTP/1.1", "host": "hello",
		},
		"revision": map[string]any{
			"namespace": "default", "service": "hello", "configuration": "hello", "name": "hello-00001", "pod": "hello-x",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestWhatIsLogged(t *testing.T) {
	probe, plain := input(t, "http://hello/probe"), input(t, "http://hello/")
	probe.Request.Header.Set("User-Agent", "kube-probe/1.36")
	const path = "{{.Request.URL.Path}}"
	cases := map[string]struct {
		settings requestlog.Settings
		want     []string
	}{
		"nothing while off":   {requestlog.Settings{Template: path, Probes: true}, nil},
		"requests":            {requestlog.Settings{On: true, Template: path}, []string{"/"}},
		"probes if asked for": {requestlog.Settings{On: true, Template: path, Probes: true}, []string{"/", "/probe"}},
	}
	for name, c := range cases {
		if diff := cmp.Diff(c.want, logged(t, c.settings, plain, probe)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if (*requestlog.Log)(nil).Wants(http.Header{}) {
		t.Error("no log wants requests")
	}
}

func TestAFullBufferDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		stuck, written := make(chan struct{}), 0
		l := requestlog.New(func(requestlog.Line) { <-stuck; written++ }, r)
		if err := l.Set(requestlog.Settings{On: true, Template: "x"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = l.Run(ctx); close(done) }()
		const requests = 5000
		l.Add(input(t, "http://hello/"))
		synctest.Wait() // it is being written
		for range requests - 1 {
			l.Add(input(t, "http://hello/"))
		}
		const want = "# HELP ebb_gateway_request_log_dropped_total Requests that are missing in the request log because it could not be written as fast as they came.\n" +
			"# TYPE ebb_gateway_request_log_dropped_total counter\nebb_gateway_request_log_dropped_total 903\n"
		if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		close(stuck)
		cancel()
		<-done
		if written != requests-903 {
			t.Errorf("%d lines written of %d", written, requests)
		}
	})
}

func line(namespace, service string, n int) requestlog.Line {
	return requestlog.Line{Namespace: namespace, Service: service, Text: fmt.Appendf(nil, "%s/%s %d", namespace, service, n)}
}

func TestShelfFindsAServicesLines(t *testing.T) {
	s := requestlog.NewShelf(filepath.Join(t.TempDir(), "requests.log"), slog.New(slog.DiscardHandler))
	for n := range 800 {
		s.Put(line("default", "hello", n))
		s.Put(line("other", "hello", n))
	}
	read := func(a requestlog.Ask) (lines []string) {
		if err := s.Read(t.Context(), a, func(text []byte) error { lines = append(lines, string(text)); return nil }); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	if got := read(requestlog.Ask{Tail: -1}); len(got) != 1000 || got[999] != "other/hello 799" {
		t.Errorf("%d lines of all", len(got))
	}
	want := []string{"default/hello 798", "default/hello 799"}
	if diff := cmp.Diff(want, read(requestlog.Ask{Namespace: "default", Service: "hello", Tail: 2})); diff != "" {
		t.Errorf("the last two (-want +got):\n%s", diff)
	}
	if got := read(requestlog.Ask{Service: "nobody", Tail: -1}); len(got) != 0 {
		t.Errorf("lines of nobody: %q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestShelfIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := requestlog.NewShelf(filepath.Join(t.TempDir(), "requests.log"), slog.New(slog.DiscardHandler))
		s.Put(line("default", "hello", 1))
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		done := make(chan error, 1)
		go func() {
			done <- s.Read(ctx, requestlog.Ask{Service: "hello", Tail: 10, Follow: true}, func(text []byte) error {
				got = append(got, string(text))
				return nil
			})
		}()
		synctest.Wait()
		s.Put(line("default", "other", 2))
		s.Put(line("default", "hello", 3))
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"default/hello 1", "default/hello 3"}, got); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
	})
}

func TestTheFileGivesWayWhenItIsBig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "requests.log")
	s := requestlog.NewSmallShelf(path, 100)
	for n := range 20 {
		s.Put(line("default", "hello", n))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) < 100 || len(before) > 120 || !strings.HasSuffix(string(after), "default/hello 19\n") || len(after) > 120 {
		t.Errorf("files of %d and %d bytes: %q", len(before), len(after), after)
	}
}

package gateway_test

import (
	"bufio"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
	"ebb.dev/ebb/internal/platform/telemetry/series/seriestest"
)

func TestHeadersTheApplicationSees(t *testing.T) {
	const uuid = "(some uuid)"
	isUUID := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	base := func() http.Header {
		return http.Header{
			"Forwarded":         {"for=127.0.0.1;host=" + host + ";proto=http"},
			"X-Forwarded-For":   {"127.0.0.1"},
			"X-Forwarded-Host":  {host},
			"X-Forwarded-Proto": {"http"},
			"X-Request-Id":      {uuid},
		}
	}
	with := func(set map[string]string) http.Header {
		h := base()
		for k, v := range set {
			if h.Del(k); v != "" {
				h.Set(k, v)
			}
		}
		return h
	}
	cases := map[string]struct {
		send    string
		trusted bool
		want    http.Header
	}{
		"none": {"", false, base()},
		"the user's own, untouched": {
			"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Mine: a b\r\n", false,
			with(map[string]string{"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Mine": "a b"}),
		},
		"an ID that is there": {"X-Request-ID: 7\r\n", false, with(map[string]string{"X-Request-Id": "7"})},
		"internal ones":       {"Knative-Serving-Revision: evil\r\nKnative-Serving-Namespace: x\r\nK-Proxy-Request: 1\r\nK-Passthrough-Lb: 1\r\nK-Original-Host: x\r\n", false, base()},
		"hop by hop":          {"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\nProxy-Connection: x\r\nTE: trailers, deflate\r\n", false, with(map[string]string{"Te": "trailers"})},
		"forwarded by nobody trusted": {
			"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n", false,
			with(map[string]string{"X-Forwarded-For": "1.2.3.4, 127.0.0.1", "Forwarded": "for=1.2.3.4;host=" + host + ";proto=http, for=127.0.0.1"}),
		},
		"forwarded by a trusted proxy": {
			"X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer.example\r\n", true,
			with(map[string]string{
				"X-Forwarded-For": "2001:db8::1, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "outer.example",
				"Forwarded": `for="[2001:db8::1]";host=outer.example;proto=https, for=127.0.0.1`,
			}),
		},
		"forwarded that is there": {"Forwarded: for=9.9.9.9\r\n", false, with(map[string]string{"Forwarded": "for=9.9.9.9"})},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{}, func(c *gateway.Config) {
				if tc.trusted {
					c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				}
			})
			seen := make(chan *http.Request, 1)
			r.serve(func(_ http.ResponseWriter, req *http.Request) { seen <- req })
			conn := r.dial()
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n"+tc.send+"\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
				t.Fatal(err)
			}
			req := <-seen
			if id := req.Header.Get("X-Request-Id"); isUUID.MatchString(id) {
				req.Header.Set("X-Request-Id", uuid)
			}
			if diff := cmp.Diff(tc.want, req.Header); diff != "" || req.Host != host {
				t.Errorf("host %q, header (-want +got):\n%s", req.Host, diff)
			}
		})
	}
}

func TestResponseHeadersPassUnchanged(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	r.serve(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Date"] = nil
		h["Content-Type"] = nil
		h.Add("Set-Cookie", "a=1")
		h.Add("Set-Cookie", "b=2")
		h.Set("Connection", "X-Hop")
		h.Set("X-Hop", "1")
		h.Set("Keep-Alive", "timeout=5")
		_, _ = io.WriteString(w, "<html>")
	})
	resp, err := http.DefaultTransport.RoundTrip(r.request("GET", "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	resp.Header.Del("Date")
	want := http.Header{"Set-Cookie": {"a=1", "b=2"}, "Content-Length": {"6"}}
	if diff := cmp.Diff(want, resp.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

func TestHosts(t *testing.T) {
	cases := map[string]struct {
		head   string
		status int
		host   string // the application's view
	}{
		"the route's":             {"GET / HTTP/1.1\r\nHost: " + host, 200, host},
		"with a port":             {"GET / HTTP/1.1\r\nHost: " + host + ":8080", 200, host + ":8080"},
		"in capitals, with a dot": {"GET / HTTP/1.1\r\nHost: HELLO.default.localhost.", 200, "HELLO.default.localhost."},
		"rewritten":               {"GET / HTTP/1.1\r\nHost: mapped.example.com", 200, "hello.default.svc.cluster.local"},
		"in the target":           {"GET http://" + host + "/x HTTP/1.1\r\nHost: other", 200, host},
		"unknown":                 {"GET / HTTP/1.1\r\nHost: nobody.default.localhost", 404, ""},
		"of the cluster":          {"GET / HTTP/1.1\r\nHost: hello.default.svc.cluster.local", 404, ""},
		"empty":                   {"GET / HTTP/1.1\r\nHost:", 404, ""},
		"asking for a tunnel":     {"CONNECT " + host + ":80 HTTP/1.1\r\nHost: " + host, 400, ""},
		"asking all":              {"OPTIONS * HTTP/1.1\r\nHost: " + host, 200, ""}, // answered by net/http in the application
		"with two lengths":        {"POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1\r\nContent-Length: 2", 400, ""},
		"with a bad length":       {"POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: +1", 400, ""},
		"with another coding":     {"POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: gzip, chunked", 501, ""},
		"with too many fields":    {"GET / HTTP/1.1\r\nHost: " + host + "\r\n" + manyFields(), 431, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{})
			seen := make(chan string, 1)
			r.serve(func(_ http.ResponseWriter, req *http.Request) { seen <- req.Host })
			conn := r.dial()
			_, _ = io.WriteString(conn, tc.head+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != tc.status {
				t.Fatalf("got %v, %v, want %d", resp, err, tc.status)
			}
			if tc.host != "" {
				if got := <-seen; got != tc.host {
					t.Errorf("the application sees host %q, want %q", got, tc.host)
				}
			}
		})
	}
}

func manyFields() string {
	var b strings.Builder
	for i := range 300 {
		b.WriteString("X-" + strings.Repeat("a", i%20) + string(rune('A'+i/20)) + ": 1\r\n")
	}
	return strings.TrimSuffix(b.String(), "\r\n")
}

func TestClusterLocalHostsOnTheInnerSide(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	_, external := r.table(traffic.Settings{}).Match("hello.default.svc.cluster.local", true)
	_, internal := r.table(traffic.Settings{}).Match("hello.default.svc.cluster.local", false)
	if external || !internal {
		t.Errorf("external %v, internal %v", external, internal)
	}
}

func TestProbesAreAnswered(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	req := r.request("GET", "/", "")
	req.Header.Set("K-Network-Probe", "probe")
	req.Header.Set("K-Network-Hash", "abc")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("K-Network-Hash") != "abc" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	if r.sink.wakes.Load() != 0 || r.sink.actives.Load() != 0 {
		t.Error("a probe woke the revision")
	}
}

func TestSplitsByPercentAndTagHeader(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	blue := types.NamespacedName{Namespace: "default", Name: "blue"}
	green := types.NamespacedName{Namespace: "default", Name: "green"}
	for _, rv := range []types.NamespacedName{blue, green} {
		s := startApp(t, func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.WriteString(w, rv.Name+req.Header.Get("Knative-Serving-Default-Route"))
		})
		r.fleet.Observe(fleet.Local, fleet.Instance{ID: types.UID(rv.Name), Revision: rv, Address: s, Ready: true})
	}
	table, err := traffic.Build([]traffic.Rule{{
		Host:      host,
		Targets:   []traffic.Target{{Revision: blue, Percent: 70}, {Revision: green, Percent: 30, Tag: "next"}},
		TagHeader: map[string][]traffic.Target{"next": {{Revision: green, Percent: 100}}},
	}}, map[types.NamespacedName]traffic.Settings{blue: {}, green: {}})
	if err != nil {
		t.Fatal(err)
	}
	r.g.SetTable(table)
	counts := map[string]int{}
	for range 400 {
		_, body, err := get(r.request("GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		counts[body]++
	}
	if b, g := counts["bluetrue"], counts["greentrue"]; b+g != 400 || b < 240 || b > 320 {
		t.Errorf("split 70/30 of 400 gave %v", counts)
	}
	req := r.request("GET", "/", "")
	req.Header.Set("Knative-Serving-Tag", "next")
	if _, body, err := get(req); err != nil || body != "green" {
		t.Errorf("tag header: %q, %v", body, err)
	}
}

func TestColdRequestsTellTheirStages(t *testing.T) {
	var began atomic.Pointer[time.Time] // the start of an instance
	r := newRig(t, traffic.Settings{}, func(c *gateway.Config) {
		c.Timeline = func(types.NamespacedName) map[string]time.Time {
			at := *began.Load()
			return map[string]time.Time{"decide": at, "replicas": at.Add(time.Millisecond)}
		}
	})
	addr := startApp(t, func(http.ResponseWriter, *http.Request) {})
	wake := func() {
		at := time.Now().Add(time.Millisecond)
		if !began.CompareAndSwap(nil, &at) {
			return
		}
		stamps := map[string]time.Time{}
		for i, stage := range []string{"bound", "sandbox", "started", "ready"} {
			stamps[stage] = at.Add(time.Duration(2+i) * time.Millisecond)
		}
		in := fleet.Instance{ID: "cold", Revision: rev, Address: addr, Ready: true, Stamps: stamps}
		time.AfterFunc(20*time.Millisecond, func() { r.fleet.Observe(fleet.Local, in) })
	}
	r.sink.onWake.Store(&wake)
	for _, cold := range []bool{true, false} {
		resp, err := http.DefaultTransport.RoundTrip(r.request("GET", "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got := resp.Header.Get("Server-Timing")
		want := regexp.MustCompile(`^queue;dur=[\d.]+, decide;dur=[\d.]+, replicas;dur=1, bound;dur=1, sandbox;dur=1, started;dur=1, ready;dur=1, dispatch;dur=[\d.]+, firstByte;dur=[\d.]+$`)
		if cold && !want.MatchString(got) || !cold && got != "" {
			t.Errorf("cold %v: Server-Timing = %q", cold, got)
		}
		if last, known := r.g.LastColdStart(rev); !known || cold && last.Stages != got {
			t.Errorf("last cold start = %+v, %v; want the stages %q", last, known, got)
		}
	}
	waitFor(t, "both requests to be counted", func() bool { return r.book.Meter(rev).InFlight() == 0 })
	names := []attribute.KeyValue{
		attribute.String("k8s.namespace.name", "default"), attribute.String("kn.service.name", ""),
		attribute.String("kn.configuration.name", ""), attribute.String("kn.revision.name", rev.Name),
	}
	waitFor(t, "the counts", func() bool {
		told := seriestest.Read(t, &r.numbers)
		return told[seriestest.Name("kn.serving.invocation.duration", append(names, attribute.Int("http.response.status_code", 200))...)] == 2 &&
			told[seriestest.Name("faas.coldstarts", names...)] == 1
	})
	if n, err := testutil.GatherAndCount(r.metrics, "ebb_gateway_cold_start_stage_seconds"); n != 9 || err != nil {
		t.Errorf("%d stages recorded, %v", n, err)
	}
}

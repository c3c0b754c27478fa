package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"k8s.io/apimachinery/pkg/types"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/domain/traffic"
	"ebb.dev/ebb/internal/platform/fleet"
)

// shop is a route to a Service, and its pseudo-revisions.
var (
	shop     = types.NamespacedName{Namespace: "default", Name: "shop"}
	shopRev  = traffic.PseudoRevision(shop)
	shopSide = traffic.PseudoFallback(shop)
)

// shared is a rule of shop's that has only its way's requests.
func shared(host, path string, to types.NamespacedName) traffic.Rule {
	return traffic.Rule{
		Host: host, Route: shop, Way: &traffic.Way{Path: path},
		Targets: []traffic.Target{{Revision: to, Percent: 100}},
	}
}

// newShop is a rig with one route to a Service, at shop.example.
func newShop(t *testing.T, settings traffic.Settings, change ...func(*gateway.Config)) *rig {
	t.Helper()
	r := newRig(t, traffic.Settings{}, change...)
	if settings.Service == nil {
		settings.Service = &traffic.Service{}
	}
	settings.Service.Name = shop
	table, err := traffic.Build([]traffic.Rule{shared("shop.example", "", shopRev)}, map[types.NamespacedName]traffic.Settings{
		shopRev: settings, shopSide: {Service: &traffic.Service{Name: types.NamespacedName{Namespace: "default", Name: "side"}, Deadline: settings.Service.Deadline}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.g.SetTable(table)
	return r
}

// ready makes a server an instance of a pseudo-revision.
func (r *rig) ready(rev types.NamespacedName, at netip.AddrPort) {
	r.fleet.Observe(fleet.Local, fleet.Instance{ID: types.UID(at.String() + rev.Name), Revision: rev, Address: at, Ready: true})
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s%s", text, r.Host, r.URL.Path, body)
	}
}

// ask sends a request and returns the response and its body.
func (r *rig) ask(host, method, path, body string) (*http.Response, string) {
	r.t.Helper()
	req := r.request(method, path, body)
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(got)
}

func TestRoutesToServicesShareHosts(t *testing.T) {
	r := newRig(t, traffic.Settings{})
	api := traffic.PseudoRevision(types.NamespacedName{Namespace: "default", Name: "api"})
	rest := traffic.PseudoRevision(types.NamespacedName{Namespace: "default", Name: "rest"})
	settings := traffic.Settings{Service: &traffic.Service{}}
	table, err := traffic.Build([]traffic.Rule{
		{Host: host, Targets: []traffic.Target{{Revision: rev, Percent: 100}}},
		shared("*.example", "/api", api), shared("*", "", rest),
	}, map[types.NamespacedName]traffic.Settings{rev: {}, api: settings, rest: settings})
	if err != nil {
		t.Fatal(err)
	}
	r.g.SetTable(table)
	r.serve(says("revision"))
	r.ready(api, startApp(t, says("api")))
	r.ready(rest, startApp(t, says("rest")))
	for _, tc := range [][3]string{
		{host, "/", "revision"}, {"x.example", "/api/1", "api"}, {"x.example:81", "/apis", "rest"}, {"10.1.2.3", "/", "rest"},
	} {
		res, got := r.ask(tc[0], http.MethodGet, tc[1], "")
		if want := tc[2] + " " + tc[0] + " " + tc[1]; got != want || res.StatusCode != 200 {
			t.Errorf("%s%s: %d %q, want %q", tc[0], tc[1], res.StatusCode, got, want)
		}
	}
	if !r.g.Public("anything.example") || r.g.Public("") {
		t.Error("a host that only a wildcard has is not told right")
	}
}

func TestAServiceIsWaitedFor(t *testing.T) {
	r := newShop(t, traffic.Settings{}, activation(time.Millisecond)) // which is for revisions
	app := startApp(t, says("hello"))
	start := func() { r.ready(shopRev, app) }
	r.sink.onWake.Store(&start)
	for _, cold := range []string{"true", "false"} {
		res, got := r.ask("shop.example", http.MethodPost, "/x", " body")
		if got != "hello shop.example /x body" || res.Header.Get("X-KEDA-HTTP-Cold-Start") != cold {
			t.Errorf("%d %q, cold start %q, want %s", res.StatusCode, got, res.Header.Get("X-KEDA-HTTP-Cold-Start"), cold)
		}
	}
	if r.sink.wakes.Load() != 1 {
		t.Errorf("%d wakes, want one", r.sink.wakes.Load())
	}
	r.serve(says("revision"))
	if res, _ := r.ask("shop.example", http.MethodGet, "/", ""); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestAServiceThatDoesNotComeInTime(t *testing.T) {
	const short = 50 * time.Millisecond
	for name, tc := range map[string]struct {
		service  traffic.Service
		side     bool // what stands in is there
		status   int
		reason   string
		answered string
	}{
		"nobody stands in":                  {traffic.Service{ReadyTimeout: short}, false, 504, "NoInstance", ""},
		"the whole time is over":            {traffic.Service{Deadline: short}, false, 504, "NoInstance", ""},
		"another stands in":                 {traffic.Service{ReadyTimeout: short, Fallback: shopSide}, true, 200, "", "side shop.example /x body"},
		"who stands in is not there":        {traffic.Service{ReadyTimeout: short, Fallback: shopSide}, false, 502, "NoInstance", ""},
		"no time is left for who stands in": {traffic.Service{ReadyTimeout: time.Minute, Deadline: short, Fallback: shopSide}, true, 504, "NoInstance", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newShop(t, traffic.Settings{Service: &tc.service})
			if tc.side {
				r.ready(shopSide, startApp(t, says("side")))
			}
			res, got := r.ask("shop.example", http.MethodPost, "/x", " body")
			if res.StatusCode != tc.status || res.Header.Get("X-Ebb-Reason") != tc.reason || tc.answered != "" && got != tc.answered {
				t.Errorf("%d %s %q", res.StatusCode, res.Header.Get("X-Ebb-Reason"), got)
			}
			if cold := res.Header["X-Keda-Http-Cold-Start"]; cold != nil {
				t.Errorf("cold start %q told of no start", cold)
			}
			for _, rev := range []types.NamespacedName{shopRev, shopSide} {
				if n := r.book.Meter(rev).InFlight(); n != 0 {
					t.Errorf("%d requests left in flight at %s", n, rev)
				}
			}
			if s := r.book.Meter(shopRev).Take(time.Now()); s.Requests != 1 {
				t.Errorf("%d requests counted where it came in", s.Requests)
			}
		})
	}
}

func TestAPlaceholderAnswersAtOnce(t *testing.T) {
	files := map[string]string{"index.html": "<p>soon", "a.css": "p{}", "odd": "?"}
	for name, tc := range map[string]struct {
		placeholder traffic.Placeholder
		path        string
		status      int
		body, kind  string
	}{
		"a body":                        {traffic.Placeholder{Status: 503, Body: "soon"}, "/", 503, "soon", "text/plain; charset=utf-8"},
		"a type of its own":             {traffic.Placeholder{Status: 202, Body: "{}", Header: map[string]string{"content-type": "application/json"}}, "/", 202, "{}", "application/json"},
		"no body":                       {traffic.Placeholder{Status: 503}, "/x", 503, "", ""},
		"the file of the root":          {traffic.Placeholder{Status: 503, Files: files}, "/", 503, "<p>soon", "text/html; charset=utf-8"},
		"the file of a path":            {traffic.Placeholder{Status: 200, Files: files}, "/a.css", 200, "p{}", "text/css; charset=utf-8"},
		"a path without a file":         {traffic.Placeholder{Status: 503, Files: files}, "/favicon.ico", 503, "", ""},
		"one file for all":              {traffic.Placeholder{Status: 503, Files: files, File: "odd"}, "/a.css", 503, "?", "text/plain; charset=utf-8"},
		"the file for all is not there": {traffic.Placeholder{Status: 503, Files: files, File: "no"}, "/", 500, "the placeholder's body is not there\n", "text/plain; charset=utf-8"},
		"the files are not there":       {traffic.Placeholder{Status: 503, Broken: true}, "/", 500, "the placeholder's body is not there\n", "text/plain; charset=utf-8"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newShop(t, traffic.Settings{Service: &traffic.Service{Placeholder: &tc.placeholder}})
			res, got := r.ask("shop.example", http.MethodGet, tc.path, "")
			if res.StatusCode != tc.status || got != tc.body || res.Header.Get("Content-Type") != tc.kind {
				t.Errorf("%d %q %q", res.StatusCode, got, res.Header.Get("Content-Type"))
			}
			if r.sink.wakes.Load() != 1 || r.sink.actives.Load() != 1 {
				t.Errorf("%d wakes, %d signs of activity; want one each", r.sink.wakes.Load(), r.sink.actives.Load())
			}
			r.ready(shopRev, startApp(t, says("hello")))
			if res, got := r.ask("shop.example", http.MethodGet, "/", ""); res.StatusCode != 200 {
				t.Errorf("with an instance: %d %q", res.StatusCode, got)
			}
		})
	}
}

func TestTimesOfAService(t *testing.T) {
	const short = 100 * time.Millisecond
	block := make(chan struct{})
	defer close(block)
	silent := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-block:
		case <-r.Context().Done():
		}
	}
	for name, settings := range map[string]traffic.Settings{
		"the whole time":        {Service: &traffic.Service{Deadline: short}},
		"time for the response": {ResponseStartTimeout: short},
	} {
		t.Run(name, func(t *testing.T) {
			r := newShop(t, settings)
			r.ready(shopRev, startApp(t, silent))
			if res, _ := r.ask("shop.example", http.MethodPost, "/", strings.Repeat("x", 1<<20)); res.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
}

func TestTimeForAResponseBeginsAfterTheBody(t *testing.T) {
	const short = 200 * time.Millisecond
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 ", h2), func(t *testing.T) {
			r := newShop(t, traffic.Settings{ResponseStartTimeout: short, H2C: h2})
			var app http.Handler = says("hello")
			if h2 {
				app = h2c.NewHandler(app, &http2.Server{})
			}
			s := httptest.NewServer(app)
			defer s.Close()
			r.ready(shopRev, netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://")))
			in, out := io.Pipe()
			go func() {
				for range 4 { // twice the time, in pieces
					if _, err := io.WriteString(out, "."); err != nil {
						return
					}
					<-time.After(short / 2)
				}
				out.Close()
			}()
			req := r.request(http.MethodPost, "/", "")
			req.Host, req.Body, req.ContentLength = "shop.example", in, -1
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(got) != "hello shop.example /...." {
				t.Errorf("%d %q", res.StatusCode, got)
			}
		})
	}
}

func TestAnEndpointSaysWhichProtocolItSpeaks(t *testing.T) {
	r := newShop(t, traffic.Settings{})
	app := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }
	s := httptest.NewServer(h2c.NewHandler(http.HandlerFunc(app), &http2.Server{}))
	defer s.Close()
	at := netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	r.fleet.Observe(fleet.Local, fleet.Instance{ID: "a", Revision: shopRev, Address: at, Ready: true, H2C: true})
	if _, got := r.ask("shop.example", http.MethodGet, "/", ""); got != "HTTP/2.0" {
		t.Errorf("an endpoint of HTTP/2 was sent %s", got)
	}
}

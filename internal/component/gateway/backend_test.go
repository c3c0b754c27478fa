package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"ebb.dev/ebb/internal/component/gateway"
	"ebb.dev/ebb/internal/domain/traffic"
)

const (
	mapped = "shop.example.com"
	plain  = "shop.default.svc.cluster.local"
)

// toBackend is a rig whose mapped host leads to what dial reaches.
func toBackend(t *testing.T, h http.HandlerFunc) *rig {
	t.Helper()
	app := startApp(t, h)
	r := newRig(t, traffic.Settings{}, func(c *gateway.Config) {
		c.DialBackend = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != plain+":80" {
				return nil, &net.DNSError{Err: "no such host", Name: addr}
			}
			return (&net.Dialer{}).DialContext(ctx, network, app.String())
		}
	})
	table, err := traffic.Build([]traffic.Rule{
		{Host: mapped, Like: plain, Backend: plain + ":80", HostRewrite: plain},
		{Host: "gone.example.com", Like: "gone", Backend: "gone:80", HostRewrite: "gone"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.g.SetTable(table)
	return r
}

func TestABackendSeesItsOwnHost(t *testing.T) {
	seen := make(chan *http.Request, 1)
	r := toBackend(t, func(w http.ResponseWriter, req *http.Request) {
		seen <- req.Clone(t.Context())
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, req.Body)
	})
	req := r.request(http.MethodPost, "/a%2Fb?x=1;y=%zz", "hello")
	req.Host = mapped + ":8080"
	req.Header.Set("X-Forwarded-Host", "evil.example")
	req.Header.Set("K-Original-Host", "evil.example")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusTeapot || string(body) != "hello" {
		t.Errorf("status %d, body %q (%v)", res.StatusCode, body, err)
	}
	got := <-seen
	if got.Host != plain || got.RequestURI != "/a%2Fb?x=1;y=%zz" {
		t.Errorf("the backend got %s for host %s", got.RequestURI, got.Host)
	}
	for name, want := range map[string]string{
		"K-Original-Host": mapped, "X-Forwarded-Host": mapped + ":8080", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
}

func TestABackendThatDoesNotAnswer(t *testing.T) {
	r := toBackend(t, func(http.ResponseWriter, *http.Request) {})
	req := r.request(http.MethodGet, "/", "")
	req.Host = "gone.example.com"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("X-Ebb-Reason") != "BackendFailed" {
		t.Errorf("status %d, reason %s", res.StatusCode, res.Header.Get("X-Ebb-Reason"))
	}
}

func TestABackendMayUpgrade(t *testing.T) {
	r := toBackend(t, func(w http.ResponseWriter, req *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+req.Header.Get("Upgrade")+"\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		_, _ = io.WriteString(conn, strings.ToUpper(line))
	})
	conn := r.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+mapped+"\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("response %+v (%v)", res, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := in.ReadString('\n'); err != nil || line != "HELLO\n" {
		t.Errorf("the backend said %q (%v)", line, err)
	}
}

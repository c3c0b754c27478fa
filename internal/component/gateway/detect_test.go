package gateway_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"ebb.dev/ebb/internal/domain/traffic"
)

func TestProtocolIsFoundOut(t *testing.T) {
	tests := map[string]struct {
		serve func(*http.Protocols)
		want  string
	}{
		"both":               {func(p *http.Protocols) { p.SetHTTP1(true); p.SetUnencryptedHTTP2(true) }, "HTTP/2.0"},
		"HTTP/2 alone":       {func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "HTTP/2.0"},
		"HTTP/1.1, as usual": {func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, traffic.Settings{DetectH2C: true})
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
			var opened atomic.Int64
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					opened.Add(1)
				}
			}
			s.Config.Protocols = new(http.Protocols)
			tt.serve(s.Config.Protocols)
			s.Start()
			t.Cleanup(s.Close)
			r.add(s.URL)
			for range 3 {
				res, err := http.DefaultClient.Do(r.request(http.MethodGet, "/", ""))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || string(body) != tt.want {
					t.Fatalf("the application saw %q, %v, want %s", body, err, tt.want)
				}
			}
			if n := opened.Load(); n != 2 {
				t.Errorf("%d connections, want one to find out and one for all requests", n)
			}
		})
	}
}

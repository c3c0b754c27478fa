package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"ebb.dev/ebb/internal/domain/traffic"
)

// headerOriginalHost tells a backend the host the client asked for, in place of which it got its own.
const headerOriginalHost = "K-Original-Host"

// Patience with backends.
const (
	backendDial = 10 * time.Second
	backendIdle = 90 * time.Second
)

// newBackends returns the transport to servers that are no revision's.
func newBackends(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: backendDial}).DialContext
	}
	return &http.Transport{
		DialContext: dial, IdleConnTimeout: backendIdle, MaxIdleConnsPerHost: 16,
		DisableCompression: true, // what the client can read is the client's to say
	}
}

// serveBackend hands a request on to the server behind a rule that leads to no revision. Nothing is
// counted, held or limited there: it is not ours.
func (f *front) serveBackend(w http.ResponseWriter, r *http.Request, rule *traffic.Rule) {
	c := call{g: f.g, w: w, r: r, front: f}
	to := &url.URL{Scheme: "http", Host: rule.Backend}
	proxy := httputil.ReverseProxy{
		Transport: f.g.backends, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.URL.RawQuery = p.In.URL.RawQuery // as the client wrote it
			p.Out.Host = rule.HostRewrite
			h := p.Out.Header
			for name := range h {
				if internal(name) {
					delete(h, name)
				}
			}
			for _, name := range []string{headerForwardedFor, headerForwardProto, headerForwardHost, headerForwarded} {
				if said := p.In.Header[name]; said != nil { // setForwarded judges them
					h[name] = said
				}
			}
			c.setForwarded(h)
			h[headerOriginalHost] = []string{rule.Host}
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil && !errors.Is(err, context.Canceled) {
				f.g.config.Log.Debug("handing a request on", "host", rule.Host, "backend", rule.Backend, "error", err)
				c.refuse(refusal{http.StatusServiceUnavailable, "BackendFailed", "the server behind " + rule.Host + " does not answer", retrySoon})
			}
		},
		ErrorLog: slog.NewLogLogger(f.g.config.Log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
}

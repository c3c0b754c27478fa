package image

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout   = 5 * time.Second
	tlsTimeout    = 10 * time.Second
	headerTimeout = 30 * time.Second
	// stallTimeout is how long a download may bring no byte at all.
	stallTimeout = 60 * time.Second
)

// newTransport makes the HTTP transport for registries: proxies from the environment, every step
// bounded, bodies that stall given up.
func newTransport() http.RoundTripper {
	return stallTransport{&http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
	}}
}

// fromRegistry says whether an error is the registry's or the network's, and not the caller's end.
func fromRegistry(err error) bool {
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// errStalled ends a download that brought nothing for stallTimeout.
var errStalled = errors.New("download stalled")

// stallTransport gives every response's body a limit on silence.
type stallTransport struct{ next http.RoundTripper }

func (t stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := &stallBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel}
	body.timer = time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	resp.Body = body
	return resp, nil
}

// stallBody cancels its request when no read returns for stallTimeout.
type stallBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // names the cause of the request's end
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *stallBody) Read(p []byte) (int, error) {
	b.timer.Reset(stallTimeout)
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	b.timer.Stop()
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

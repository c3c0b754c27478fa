package external

import (
	"context"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// soonest and latest bound the pauses between attempts to connect, each of which may take as long as
	// connecting.
	soonest    = 100 * time.Millisecond
	latest     = 500 * time.Millisecond
	connecting = 5 * time.Second
	// ended is the most that a stream is left alone which the server ended in good order.
	ended = 2 * time.Second
	// rarely is how often a server is asked for a stream that it does not know.
	rarely = time.Minute
	// quiet is how long a connection may be silent before it is tested: servers hang up on who does
	// that more often than every five minutes. dead is how long a test, or any question, may stay
	// without so much as an acknowledgement.
	quiet = 6 * time.Minute
	dead  = 20 * time.Second
)

// A link is the connection to a server that all its triggers share.
type link struct {
	conn grpc.ClientConnInterface
	pool *endpoint.Pool
	log  *slog.Logger
	hub  *endpoint.Hub[interest]
}

// open makes a link. It connects when it is first used.
func open(p *parameters, env trigger.Environment) (*link, func(), error) {
	transport := insecure.NewCredentials()
	config, err := endpoint.Certificate{CA: p.CA, Cert: p.ClientCert, Key: p.ClientKey, Unsafe: p.Unsafe}.TLS(env.TLS)
	if err != nil {
		return nil, nil, err
	}
	if p.EnableTLS || len(config.Certificates) > 0 || p.CA != "" {
		transport = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+p.Address,
		grpc.WithTransportCredentials(transport),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return env.Dial(ctx, "tcp", address) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: env.Shared.Rest(soonest), Multiplier: 2, Jitter: 0.2, MaxDelay: env.Shared.Rest(latest)},
			MinConnectTimeout: connecting,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: quiet, Timeout: dead}))
	if err != nil {
		return nil, nil, err
	}
	l := &link{conn: conn, pool: env.Shared, log: env.Log}
	l.hub = endpoint.NewHub(env.Shared, "external scaler at "+p.Address, env.Log, func(ctx context.Context, h *endpoint.Hub[interest]) error {
		return h.Each(ctx, func(ctx context.Context, key interest) { l.follow(ctx, key, func() { h.Wake(key) }) })
	})
	return l, func() {
		l.hub.Close()
		_ = conn.Close()
	}, nil
}

// follow has a stream open as long as it can.
func (l *link) follow(ctx context.Context, key interest, wake func()) {
	pause, failing := time.Duration(0), false
	for ctx.Err() == nil {
		begin := time.Now()
		// The first to fail tells why; those after it begin as soon as there is a connection.
		err := key.stream(ctx, key.by.client(""), wake, grpc.WaitForReady(failing))
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > connecting {
			pause, failing = 0, false
		}
		if status.Code(err) == codes.Unavailable {
			pause = l.pool.Pause(pause, endpoint.ErrLost)
		} else {
			pause = l.pool.Pause(pause, err)
		}
		wait := pause
		switch {
		case err == nil:
			wait = min(wait, ended)
		case status.Code(err) == codes.Unimplemented && key.targets:
			<-ctx.Done() // it is optional
			return
		case status.Code(err) == codes.Unimplemented:
			wait = rarely
		case !failing:
			l.log.Warn("watching for work: it is polled until that works again", "scaler", key.by.address, "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// patience is how long connecting and one answer may take.
	patience = 5 * time.Second
	// rest is how long a connection stays open unused; triggers are mostly read every 30 s.
	rest = 5 * time.Minute
	// buffer is the size of a connection's buffers: questions and answers are small.
	buffer = 8 << 10
)

// A server is what triggers of the same addresses, database and user share.
type server struct {
	client redis.UniversalClient
	env    trigger.Environment
	batch  *endpoint.Batch[question, answer]
	hub    *endpoint.Hub[interest]
	poller map[trigger.Mode]*endpoint.Poller[question, int64]
}

// silence has the client print nothing by itself; every failure is returned as well.
var silence = sync.OnceFunc(logging.Disable)

func open(to connection, t topology, database int, env trigger.Environment) (*server, func(), error) {
	silence()
	lifetime, end := env.Shared.Lifetime()
	env.Dial = endpoint.Until(lifetime, env.Dial)
	dial, err := dialer(to, env)
	if err != nil {
		end()
		return nil, nil, err
	}
	s := &server{client: client(to, t, database, dial), env: env}
	s.batch = endpoint.NewBatch(s.ask)
	s.hub = endpoint.NewHub(env.Shared, "Redis at "+strings.Join(to.Addresses, ","), env.Log, s.session)
	s.poller = map[trigger.Mode]*endpoint.Poller[question, int64]{
		trigger.Idle:   endpoint.NewPoller(env.Shared, often, s.values),
		trigger.Active: endpoint.NewPoller(env.Shared, seldom, s.values),
	}
	return s, func() {
		end() // the client waits for servers that do not answer
		s.hub.Close()
		_ = s.client.Close()
	}, nil
}

// dialer returns how connections are made, TLS included.
func dialer(to connection, env trigger.Environment) (endpoint.Dial, error) {
	if !to.secure {
		return env.Dial, nil
	}
	config, err := endpoint.Certificate{
		CA: to.CA, Cert: to.Cert, Key: to.Key, KeyPassword: to.KeyPassword, Unsafe: to.UnsafeSSL,
	}.TLS(env.TLS)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := env.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mine := config.Clone()
		if host, _, err := net.SplitHostPort(address); err == nil && mine.ServerName == "" {
			mine.ServerName = host
		}
		secured := tls.Client(conn, mine)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("connecting to %s by TLS: %w", address, err)
		}
		return secured, nil
	}, nil
}

package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// patience is how long one question may take.
	patience = 5 * time.Second
	// soonest and latest bound the pauses between attempts to connect.
	soonest = 100 * time.Millisecond
	latest  = 500 * time.Millisecond
	// alive is how often a silent connection is tested, and how long it may take to answer: servers
	// hang up on who does that more often than every five seconds.
	alive = 10 * time.Second
	// tries is how often a question is asked within a second or so. It ends before patience does, so
	// that the error is that of the connection.
	tries = 40
	// later is how often changes matter while work goes on.
	later = time.Second
)

var errEnded = errors.New("the watch has ended")

// An interest is what is watched: a key, whose watch may be silent for so long.
type interest struct {
	key     string
	silence time.Duration
	mode    trigger.Mode
}

// A cluster is what triggers with the same endpoints and credentials share: a client, which has one
// connection with each endpoint and one stream for all watches.
type cluster struct {
	env    trigger.Environment
	config clientv3.Config
	hub    *endpoint.Hub[interest]

	making chan struct{} // has room for one, who may look at the fields below
	client *clientv3.Client
	end    context.CancelFunc // of the client's context
}

func open(p *parameters, env trigger.Environment) (*cluster, func(), error) {
	c := &cluster{env: env, making: make(chan struct{}, 1)}
	c.config = clientv3.Config{
		Endpoints: p.Endpoints, Username: p.Username, Password: p.Password, Logger: zap.NewNop(),
		DialTimeout: patience, DialKeepAliveTime: alive, DialKeepAliveTimeout: alive, MaxUnaryRetries: tries,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return env.Dial(ctx, "tcp", address) }),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: env.Shared.Rest(soonest), Multiplier: 2, Jitter: 0.2, MaxDelay: env.Shared.Rest(latest)},
				MinConnectTimeout: patience,
			}),
		},
	}
	var err error
	if c.config.TLS, err = p.encryption(env.TLS); err != nil {
		return nil, nil, err
	}
	what := "etcd at " + strings.Join(p.Endpoints, ",")
	c.hub = endpoint.NewHub(env.Shared, what, env.Log, c.session)
	return c, c.close, nil
}

// encryption returns nil where connections are plain.
func (p *parameters) encryption(base *tls.Config) (*tls.Config, error) {
	switch {
	case p.TLS == enable:
		return endpoint.Certificate{CA: p.CA, Cert: p.ClientCert, Key: p.ClientKey, KeyPassword: p.KeyPassword}.TLS(base)
	case len(p.Endpoints) > 0 && strings.HasPrefix(p.Endpoints[0], "https://"): // the client goes by the first
		return endpoint.Certificate{}.TLS(base)
	default:
		return nil, nil
	}
}

// connected returns the client. Making one signs in where there is a password, so that it is not made
// before it is needed.
func (c *cluster) connected(ctx context.Context) (*clientv3.Client, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case c.making <- struct{}{}:
	}
	defer func() { <-c.making }()
	if c.client != nil {
		return c.client, nil
	}
	lifetime, end := c.env.Shared.Lifetime()
	stop := context.AfterFunc(ctx, end)
	config := c.config
	config.Context = lifetime
	client, err := clientv3.New(config)
	if err != nil {
		end()
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if !stop() {
		end()
		_ = client.Close()
		return nil, ctx.Err()
	}
	c.client, c.end = client, end
	return client, nil
}

func (c *cluster) close() {
	c.hub.Close()
	c.making <- struct{}{}
	defer func() { <-c.making }()
	if c.client != nil {
		_ = c.client.Close()
		c.end()
	}
}

func (c *cluster) get(ctx context.Context, key string) (value string, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.connected(ctx)
	if err != nil {
		return "", false, err
	}
	got, err := client.Get(ctx, key)
	if err != nil || len(got.Kvs) == 0 {
		return "", false, err
	}
	return string(got.Kvs[0].Value), true, nil
}

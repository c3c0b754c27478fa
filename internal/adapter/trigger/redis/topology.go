package redis

import (
	"context"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// A topology is what a trigger's addresses lead to.
type topology int

const (
	single topology = iota
	cluster
	sentinel
)

// New makes a trigger of type redis.
func New(c trigger.Config) (trigger.Source, error) { return newList(c, single) }

// NewCluster makes a trigger of type redis-cluster.
func NewCluster(c trigger.Config) (trigger.Source, error) { return newList(c, cluster) }

// NewSentinel makes a trigger of type redis-sentinel.
func NewSentinel(c trigger.Config) (trigger.Source, error) { return newList(c, sentinel) }

// NewStreams makes a trigger of type redis-streams.
func NewStreams(c trigger.Config) (trigger.Source, error) { return newStream(c, single) }

// NewClusterStreams makes a trigger of type redis-cluster-streams.
func NewClusterStreams(c trigger.Config) (trigger.Source, error) { return newStream(c, cluster) }

// NewSentinelStreams makes a trigger of type redis-sentinel-streams.
func NewSentinelStreams(c trigger.Config) (trigger.Source, error) { return newStream(c, sentinel) }

// client returns one with a single connection to each server: questions of all triggers are joined.
func client(to connection, t topology, database int, dial endpoint.Dial) redis.UniversalClient {
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch t {
	case cluster: // there are no databases
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: to.Addresses, Dialer: dial, Username: to.Username, Password: to.Password,
			DialTimeout: patience, DialerRetries: 1, ReadTimeout: patience, ContextTimeoutEnabled: true,
			PoolSize: 1, ConnMaxIdleTime: rest, ReadBufferSize: buffer, WriteBufferSize: buffer,
			DisableIdentity: true, MaintNotificationsConfig: quiet, DisableRoutingPolicies: true,
			ClusterStateReloadInterval: review,
		})
	case sentinel:
		return redis.NewFailoverClient(&redis.FailoverOptions{
			SentinelAddrs: to.Addresses, MasterName: to.SentinelMaster,
			SentinelUsername: to.SentinelUsername, SentinelPassword: to.SentinelPassword,
			Dialer: dial, DB: database, Username: to.Username, Password: to.Password,
			MaxRetries: 1, DialTimeout: patience, DialerRetries: 1, ReadTimeout: patience, ContextTimeoutEnabled: true,
			PoolSize: 1, ConnMaxIdleTime: rest, ReadBufferSize: buffer, WriteBufferSize: buffer,
			DisableIdentity: true,
		})
	default:
		return redis.NewClient(&redis.Options{
			Addr: to.Addresses[0], Dialer: dial, DB: database, Username: to.Username, Password: to.Password,
			MaxRetries: 1, DialTimeout: patience, DialerRetries: 1, ReadTimeout: patience, ContextTimeoutEnabled: true,
			PoolSize: 1, ConnMaxIdleTime: rest, ReadBufferSize: buffer, WriteBufferSize: buffer,
			DisableIdentity: true, MaintNotificationsConfig: quiet,
		})
	}
}

// node returns the client of the server that has a key.
func (s *server) node(ctx context.Context, key string) (*redis.Client, error) {
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	case *redis.Client:
		return c, nil
	default:
		return nil, errAnswer
	}
}

// moved has a cluster be asked again who has which key.
func (s *server) moved(ctx context.Context) {
	if c, is := s.client.(*redis.ClusterClient); is {
		c.ReloadState(ctx)
	}
}

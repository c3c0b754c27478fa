package differential

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// do has a server do commands, each a line of words.
func do(client redis.UniversalClient, commands ...string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for _, command := range commands {
			var words []any
			for word := range strings.FieldsSeq(command) {
				words = append(words, word)
			}
			if err := client.Do(t.Context(), words...).Err(); err != nil && !errors.Is(err, redis.Nil) {
				t.Fatalf("%s: %v", command, err)
			}
		}
	}
}

// push has the list "jobs" have n items.
func push(client redis.UniversalClient, n int) func(*testing.T) {
	commands := []string{"DEL jobs"}
	for i := range n {
		commands = append(commands, fmt.Sprint("RPUSH jobs ", i))
	}
	return do(client, commands...)
}

// lists compares lists of a server that the metadata leads to.
func lists(t *testing.T, s subject, client redis.UniversalClient) {
	t.Helper()
	s.Metadata["listName"], s.Metadata["listLength"], s.Metadata["activationListLength"] = "jobs", "5", "2"
	s.Refused = append(s.Refused, "listName", "listLength=many", "activationListLength=x", "enableTLS=no", "unsafeSsl=perhaps")
	s.Where = append(s.Where, "enableTLS") // connecting by TLS where there is none takes long to fail
	s.Try = map[string][]string{
		"enableTLS": {"false", "yes"}, "unsafeSsl": nil, "auth tls": {"disable"}, "listName": {"a/b:c.d%(e)", "jobs "},
		"databaseIndex": {"3"}, "listLength": {"-5", "0x10", "007"},
	}
	compare(t, s,
		state{name: "no list", set: push(client, 0), want: "0"},
		state{name: "below activation", set: push(client, 1), want: "1"},
		state{name: "at activation", set: push(client, 2), want: "2"},
		state{name: "above it", set: push(client, 3), want: "3"},
		state{name: "above the target", set: push(client, 17), want: "17"},
		state{name: "a set", set: do(client, "DEL jobs", "SADD jobs a b c d"), want: "4"},
		state{name: "a sorted set", set: do(client, "DEL jobs", "ZADD jobs 1 a 2 b 3 c"), want: "3"},
		state{name: "a hash", set: do(client, "DEL jobs", "HSET jobs a 1 b 2 c 3 d 4 e 5"), want: "5"},
		state{name: "a text", set: do(client, "DEL jobs", "SET jobs 7"), want: fails},
		state{name: "a stream", set: do(client, "DEL jobs", "XADD jobs * a b"), want: fails},
		state{name: "seven", set: push(client, 7), want: "7"},
	)
}

// streams compares the three things a stream can be asked for.
func streams(t *testing.T, s subject, client redis.UniversalClient) {
	t.Helper()
	s.Metadata["stream"], s.Metadata["activationLagCount"] = "events", "2"
	events := func(n int, more ...string) func(*testing.T) {
		commands := []string{"DEL events", "XGROUP CREATE events workers 0 MKSTREAM"}
		for range n {
			commands = append(commands, "XADD events * a b")
		}
		return do(client, append(commands, more...)...)
	}
	for name, over := range map[string]map[string]string{
		"length":          {"streamLength": "5"},
		"pending entries": {"consumerGroup": "workers", "pendingEntriesCount": "5"},
		"lag":             {"consumerGroup": "workers", "lagCount": "5"},
	} {
		t.Run(name, func(t *testing.T) {
			s := s
			s.Metadata = merged(s.Metadata, over)
			s.Refused = append(s.Refused, "stream", "streamLength=junk", "pendingEntriesCount=junk", "lagCount=junk", "activationLagCount=junk")
			s.Try = map[string][]string{
				"streamLength": nil, "pendingEntriesCount": nil, "lagCount": {"3"}, "databaseIndex": {"3"},
				"consumerGroup": {"others"}, "auth tls": {"disable", "on"}, "stream": {"none"},
			}
			const take = "XREADGROUP GROUP workers me COUNT 3 STREAMS events >"
			compare(t, s,
				state{name: "nothing", set: do(client, "DEL events")},
				state{name: "no group", set: do(client, "DEL events", "XADD events * a b", "XADD events * a b", "XADD events * a b")},
				state{name: "empty", set: events(0), want: "0"},
				state{name: "a few", set: events(2)},
				state{name: "many", set: events(13)},
				state{name: "some taken", set: events(9, take)},
				state{name: "a list", set: do(client, "DEL events", "RPUSH events 1")},
				state{name: "some deleted", set: events(4, "XADD events 99999999999999-1 a b", "XADD events 99999999999999-2 a b", "XDEL events 99999999999999-1")},
				state{name: "all taken", set: events(3, take)},
				state{name: "some of many taken", set: events(8, take)},
			)
		})
	}
}

func TestRedis(t *testing.T) {
	covers(t, "redis", "redis-streams")
	s := servers.Redis(t)
	client := redis.NewClient(&redis.Options{Addr: s.Address})
	t.Cleanup(func() { _ = client.Close() })
	host, port, _ := strings.Cut(s.Address, ":")
	t.Run("lists", func(t *testing.T) {
		lists(t, subject{
			Type: "redis", Metadata: map[string]string{"address": s.Address}, Where: []string{"address"}, Refused: []string{"address"},
			Auth: map[string]string{},
		}, client)
	})
	t.Run("streams", func(t *testing.T) {
		streams(t, subject{
			Type: "redis-streams", Metadata: map[string]string{"host": host, "port": port}, Where: []string{"host", "port"}, Refused: []string{"host", "port"},
		}, client)
	})
	t.Run("ways to it", func(t *testing.T) {
		push(client, 4)(t)
		address := s.Address
		s := subject{Type: "redis", Metadata: map[string]string{"listName": "jobs"}}
		for _, way := range []state{
			{name: "an address", over: map[string]string{"address": address}, want: "4"},
			{name: "addresses by authentication", over: map[string]string{"auth addresses": address}, want: "4"},
			{name: "a variable", over: map[string]string{"addressFromEnv": "A", "env A": address}, want: "4"},
			{name: "a variable that is not there", over: map[string]string{"addressFromEnv": "A"}, want: refused},
			{name: "a host and a port", over: map[string]string{"host": host, "port": port}, want: "4"},
			{name: "a host without a port", over: map[string]string{"host": host}, want: refused},
			{name: "more hosts than ports", over: map[string]string{"hosts": host + "," + host, "ports": port}, want: refused},
			{name: "TLS said twice", over: map[string]string{"address": address, "enableTLS": "false", "auth tls": "disable"}, want: refused},
			{name: "TLS where there is none", over: map[string]string{"address": address, "enableTLS": "true"}, want: fails},
			{name: "TLS with a certificate that is none", over: map[string]string{"address": address, "auth tls": "enable", "auth cert": "x", "auth key": "y"}, want: fails},
			{name: "nobody there", over: map[string]string{"address": "127.0.0.1:" + process.Port(t)}, want: fails},
			{name: "a password nobody wants", over: map[string]string{"address": address, "password": "x"}},
			{name: "a user nobody knows", over: map[string]string{"address": address, "username": "me", "password": "x"}, want: fails},
		} {
			s.row(t, way)
		}
	})
}

func TestRedisCluster(t *testing.T) {
	covers(t, "redis-cluster", "redis-cluster-streams")
	var addresses []string
	for _, node := range servers.RedisCluster(t) {
		addresses = append(addresses, node.Address)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addresses})
	t.Cleanup(func() { _ = client.Close() })
	t.Run("lists", func(t *testing.T) {
		lists(t, subject{
			Type: "redis-cluster", Metadata: map[string]string{"addresses": strings.Join(addresses, ",")},
			Where: []string{"addresses"}, Refused: []string{"addresses"},
		}, client)
	})
	t.Run("streams", func(t *testing.T) {
		streams(t, subject{
			Type: "redis-cluster-streams", Metadata: map[string]string{"addresses": addresses[1]}, Where: []string{"addresses"}, Refused: []string{"addresses"},
		}, client)
	})
}

func TestRedisSentinel(t *testing.T) {
	covers(t, "redis-sentinel", "redis-sentinel-streams")
	s := servers.RedisSentinel(t)
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		SentinelAddrs: []string{s.Address}, MasterName: "jobs", SentinelUsername: servers.SentinelUser, SentinelPassword: servers.SentinelPassword,
		Password: servers.RedisPassword, DB: 2,
	})
	t.Cleanup(func() { _ = client.Close() })
	for deadline := time.Now().Add(30 * time.Second); client.Ping(t.Context()).Err() != nil; <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the sentinel does not know its server")
		}
	}
	made := func(kind string) subject {
		return subject{
			Type: kind,
			Metadata: map[string]string{
				"addresses": s.Address, "sentinelMaster": "jobs", "sentinelUsername": servers.SentinelUser, "databaseIndex": "2",
			},
			Auth:    map[string]string{"password": servers.RedisPassword, "sentinelPassword": servers.SentinelPassword},
			Where:   []string{"addresses"},
			Refused: []string{"addresses", "databaseIndex=x"},
		}
	}
	t.Run("lists", func(t *testing.T) { lists(t, made("redis-sentinel"), client) })
	t.Run("streams", func(t *testing.T) { streams(t, made("redis-sentinel-streams"), client) })
}

package redis

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// A testSentinel watches over a server and its replica; all have passwords.
type testSentinel struct {
	address   string
	client    *redis.SentinelClient
	main      *testServer
	replica   *testServer
	following *redis.Client // of whoever is the main server
}

const (
	password      = servers.RedisPassword
	sentinelUser  = servers.SentinelUser
	sentinelWords = servers.SentinelPassword
)

func startSentinel(t testing.TB) *testSentinel {
	t.Helper()
	run := servers.RedisSentinel(t)
	s := &testSentinel{address: run.Address, main: served(t, run.Main), replica: served(t, run.Replica)}
	s.client = redis.NewSentinelClient(&redis.Options{Addr: s.address, Username: sentinelUser, Password: sentinelWords})
	t.Cleanup(func() { _ = s.client.Close() })
	eventually(t, "the replica is known", func() error {
		replicas, err := s.client.Replicas(t.Context(), "jobs").Result()
		if err == nil && (len(replicas) != 1 || replicas[0]["flags"] != "slave" || replicas[0]["master-link-status"] != "ok") {
			err = fmt.Errorf("%v", replicas)
		}
		return err
	})
	s.following = redis.NewFailoverClient(&redis.FailoverOptions{
		SentinelAddrs: []string{s.address}, MasterName: "jobs", SentinelUsername: sentinelUser, SentinelPassword: sentinelWords,
		Password: password, DB: 2,
	})
	t.Cleanup(func() { _ = s.following.Close() })
	return s
}

// parameters are how triggers find it.
func (s *testSentinel) parameters(to map[string]string) map[string]string {
	host, port, _ := net.SplitHostPort(s.address)
	to["host"], to["port"] = host, port
	to["sentinelMaster"], to["sentinelUsername"], to["sentinelPassword"] = "jobs", sentinelUser, sentinelWords
	to["password"], to["databaseIndex"] = password, "2"
	return to
}

func TestSentinel(t *testing.T) {
	s := startSentinel(t)
	t.Run("list", func(t *testing.T) {
		subject := listSubject(t, s.following)
		subject.Type, subject.Build = "redis-sentinel", NewSentinel
		s.parameters(subject.Metadata)
		subject.Down = map[string]string{"port": process.Port(t)}
		triggertest.Run(t, subject)
	})
	for name, subject := range streamSubjects(t, s.following) {
		t.Run("stream by "+name, func(t *testing.T) {
			subject.Type, subject.Build = "redis-sentinel-streams", NewSentinelStreams
			s.parameters(subject.Metadata)
			subject.Variant = true
			triggertest.Run(t, subject)
		})
	}
	t.Run("the new server is asked and heard after a failover", s.testFailover)
}

func (s *testSentinel) testFailover(t *testing.T) {
	fill(t, s.following, "jobs", 2)
	source := build(t, triggertest.Environment(t), NewSentinel, s.parameters(map[string]string{"listName": "jobs"}))
	if got := read(t, source); got != 2 {
		t.Errorf("before the failover it has %d items; want 2", got)
	}
	woken := observe(t, source, trigger.Idle)
	<-woken
	eventually(t, "the failover begins", func() error { return s.client.Failover(t.Context(), "jobs").Err() })
	eventually(t, "the replica is the main server", func() error {
		at, err := s.client.GetMasterAddrByName(t.Context(), "jobs").Result()
		if err == nil && strings.Join(at, ":") != s.replica.address {
			err = errors.New(at[1])
		}
		return err
	})
	eventually(t, "it takes work", func() error { return s.following.RPush(t.Context(), "jobs", 2).Err() })
	awaitWake(t, woken, func() bool {
		got, err := source.Read(t.Context())
		return err == nil && got[0].Value.Value() == 3
	})
	drain(woken)
	fill(t, s.following, "jobs", 5)
	awaitWake(t, woken, func() bool { return read(t, source) == 5 })
}

package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

// A testServer is a real server with a client of the test's own.
type testServer struct {
	*process.Process
	address string
	client  redis.UniversalClient
}

// start runs a server with more configuration, as arguments.
func start(t testing.TB, arguments ...string) *testServer {
	t.Helper()
	return served(t, servers.Redis(t, arguments...))
}

func served(t testing.TB, s servers.Server) *testServer {
	t.Helper()
	silence()
	client := redis.NewClient(&redis.Options{Addr: s.Address, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = client.Close() })
	return &testServer{Process: s.Process, address: s.Address, client: client}
}

// fill has a list have n items.
func fill(t testing.TB, client redis.UniversalClient, key string, n int) {
	t.Helper()
	_, err := client.TxPipelined(t.Context(), func(pipe redis.Pipeliner) error {
		pipe.Del(t.Context(), key)
		for i := range n {
			pipe.RPush(t.Context(), key, i)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// full checks that a list still has what fill put there, in order.
func full(t *testing.T, client redis.UniversalClient, key string, n int) {
	t.Helper()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
	}
	got, err := client.LRange(t.Context(), key, 0, -1).Result()
	if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the list has %v, %v; want %v", got, err, want)
	}
}

func listSubject(t *testing.T, client redis.UniversalClient) triggertest.Subject {
	t.Helper()
	return triggertest.Subject{
		Type: "redis", Build: New,
		Metadata: map[string]string{"listName": "jobs", "listLength": "5", "activationListLength": "2"},
		Metric:   "redis-jobs", Target: "5",
		Required: []string{"listName"},
		Wrong: map[string]string{
			"listLength": "AA", "activationListLength": "AA", "databaseIndex": "x", "enableTLS": "no", "unsafeSsl": "perhaps",
		},
		Set:       func(t *testing.T, n int) { fill(t, client, "jobs", n) },
		Untouched: func(t *testing.T, n int) { full(t, client, "jobs", n) },
		Within:    300 * time.Millisecond,
	}
}

func TestList(t *testing.T) {
	s := start(t)
	subject := listSubject(t, s.client)
	subject.Metadata["address"] = s.address
	subject.Required = append(subject.Required, "address")
	subject.Down = map[string]string{"address": "127.0.0.1:" + process.Port(t)}
	subject.Break = func(t *testing.T) { s.Stop(t) }
	subject.Repair = func(t *testing.T) { s.Start(t) }
	triggertest.Run(t, subject)
}

func build(t testing.TB, env trigger.Environment, build trigger.Build, parameters map[string]string) trigger.Source {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = parameters
	made, err := build(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func BenchmarkWake(b *testing.B) {
	s := start(b)
	for name, kind := range map[string]struct {
		build      trigger.Build
		parameters map[string]string
		add        func()
	}{
		"list": {New, map[string]string{"listName": "l"}, func() { s.client.RPush(b.Context(), "l", 1) }},
		"stream": {NewStreams, map[string]string{"stream": "s"}, func() {
			s.client.XAdd(b.Context(), &redis.XAddArgs{Stream: "s", Values: []string{"a", "b"}})
		}},
	} {
		b.Run(name, func(b *testing.B) {
			env := trigger.Environment{}
			triggertest.Bench(b, &env)
			kind.parameters["address"] = s.address
			triggertest.Wakes(b, build(b, env, kind.build, kind.parameters), kind.add)
		})
	}
}

// as returns another client of the test's own.
func (s *testServer) as(t *testing.T, password string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.address, Password: password})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

package redis

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

const (
	stream = "events"
	group  = "workers"
)

func add(t testing.TB, client redis.UniversalClient, n int) {
	t.Helper()
	for i := range n {
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, Values: []any{"n", i}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// renew makes the stream anew, with a group, and n entries in it.
func renew(t testing.TB, client redis.UniversalClient, n int) {
	t.Helper()
	if err := client.Del(t.Context(), stream).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.XGroupCreateMkStream(t.Context(), stream, group, "0").Err(); err != nil {
		t.Fatal(err)
	}
	add(t, client, n)
}

// take has a consumer of the group get n entries, which it does not acknowledge.
func take(t testing.TB, client redis.UniversalClient, n int) {
	t.Helper()
	err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{
		Group: group, Consumer: "c", Streams: []string{stream, ">"}, Count: int64(n), Block: -1,
	}).Err()
	if err != nil {
		t.Fatal(err)
	}
}

// streamSubjects are the three things a stream can be asked for.
func streamSubjects(t *testing.T, client redis.UniversalClient) map[string]triggertest.Subject {
	t.Helper()
	lag := func(t *testing.T, want int) {
		t.Helper()
		groups, err := client.XInfoGroups(t.Context(), stream).Result()
		if err != nil || len(groups) != 1 || groups[0].Lag != int64(want) || groups[0].Consumers != 0 {
			t.Errorf("groups are %+v, %v; want one without consumers that lags by %d", groups, err, want)
		}
	}
	subjects := map[string]triggertest.Subject{
		"length": {
			Metadata: map[string]string{"streamLength": "5"},
			Set:      func(t *testing.T, n int) { renew(t, client, n) }, Untouched: lag,
			Wrong: map[string]string{"streamLength": "junk"},
		},
		"lag": {
			Metadata: map[string]string{"consumerGroup": group, "lagCount": "5"},
			Set:      func(t *testing.T, n int) { renew(t, client, n) }, Untouched: lag,
			Wrong: map[string]string{"lagCount": "junk"},
		},
		"pending entries": {
			Metadata: map[string]string{"consumerGroup": group, "pendingEntriesCount": "5"},
			Set: func(t *testing.T, n int) {
				renew(t, client, n)
				if n > 0 {
					take(t, client, n)
				}
			},
			Wrong: map[string]string{"pendingEntriesCount": "junk", "databaseIndex": "junk", "enableTLS": "no"},
		},
	}
	for name, s := range subjects {
		s.Type, s.Build, s.Metric, s.Target, s.Within = "redis-streams", NewStreams, "redis-streams-events", "5", 300*time.Millisecond
		s.Metadata["stream"], s.Metadata["activationLagCount"] = stream, "2"
		s.Required = []string{"stream"}
		subjects[name] = s
	}
	return subjects
}

func TestStream(t *testing.T) {
	for name := range streamSubjects(t, nil) {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			subject := streamSubjects(t, s.client)[name]
			subject.Metadata["address"], subject.Variant = s.address, name != "pending"
			subject.Down = map[string]string{"address": "127.0.0.1:" + process.Port(t)}
			subject.Break = func(t *testing.T) { s.Stop(t) }
			subject.Repair = func(t *testing.T) { s.Start(t) }
			triggertest.Run(t, subject)
		})
	}
}

func TestLagOfAGroupThatIsNotThere(t *testing.T) {
	s := start(t)
	made := build(t, triggertest.Environment(t), NewStreams, map[string]string{
		"address": s.address, "stream": stream, "consumerGroup": group, "lagCount": "5",
	})
	if got := read(t, made); got != 0 {
		t.Errorf("the lag of a stream that is not there is %d; want 0", got)
	}
	add(t, s.client, 4)
	if got := read(t, made); got != 4 {
		t.Errorf("before there is a group the lag is %d; want 4, the length of the stream", got)
	}
	if err := s.client.XGroupCreate(t.Context(), stream, group, "0").Err(); err != nil {
		t.Fatal(err)
	}
	take(t, s.client, 3)
	if got := read(t, made); got != 1 {
		t.Errorf("after 3 of 4 were taken the lag is %d; want 1", got)
	}
	// The server does not know the lag of a group behind entries that were deleted.
	if err := s.client.XGroupCreate(t.Context(), stream, "other", "0").Err(); err != nil {
		t.Fatal(err)
	}
	first, err := s.client.XRange(t.Context(), stream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.XDel(t.Context(), stream, first[2].ID).Err(); err != nil {
		t.Fatal(err)
	}
	unknown := build(t, triggertest.Environment(t), NewStreams, map[string]string{
		"address": s.address, "stream": stream, "consumerGroup": "other", "lagCount": "5",
	})
	if got := read(t, unknown); got != 0 {
		t.Errorf("an unknown lag is %d; want 0", got)
	}
}

func TestStreamsThatCannotBeRead(t *testing.T) {
	s := start(t)
	fill(t, s.client, "list", 1)
	add(t, s.client, 1)
	for name, parameters := range map[string]map[string]string{
		"pending entries without a group": {"stream": stream, "consumerGroup": group},
		"pending entries of nothing":      {"stream": "nothing", "consumerGroup": group},
		"length of a list":                {"stream": "list"},
		"lag of a list":                   {"stream": "list", "consumerGroup": group, "lagCount": "1"},
	} {
		parameters["address"] = s.address
		made := build(t, triggertest.Environment(t), NewStreams, parameters)
		if got, err := made.Read(t.Context()); err == nil {
			t.Errorf("%s: Read() = %v; want an error", name, got)
		}
	}
}

func TestLagNeedsRedis7(t *testing.T) {
	for info, want := range map[string]error{
		"# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n": nil,
		"# Server\r\nredis_version:8\r\n":                               errBadVersion,
		"# Server\r\nredis_version:8.2\r\n":                             nil,
		"# Server\r\nredis_version:6.2.14\r\n":                          errOldVersion,
		"# Server\r\nredis_version:unstable\r\n":                        errBadVersion,
		"# Server\r\nvalkey_version:8.1.0\r\n":                          errNoVersion,
	} {
		said := redis.NewStringCmd(t.Context())
		said.SetVal(info)
		if err := knowsLag(said); !errors.Is(err, want) {
			t.Errorf("%q: %v; want %v", info, err, want)
		}
	}
}

func read(t *testing.T, made trigger.Source) int64 {
	t.Helper()
	got, err := made.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got[0].Value.Value()
}

func TestOneQuestionForAll(t *testing.T) {
	s := start(t)
	env := triggertest.Environment(t)
	relay := process.NewRelay(t, s.address)
	done := make(chan error)
	const many = 300
	for n := range many {
		fill(t, s.client, fmt.Sprint(n), n%7)
		made := build(t, env, New, map[string]string{"address": relay.Address, "listName": fmt.Sprint(n)})
		defer made.(trigger.Pusher).Watch(trigger.Mode(n%2), func() {})()
		go func() {
			got, err := made.Read(t.Context())
			if err == nil && got[0].Value.Value() != int64(n%7) {
				err = fmt.Errorf("list %d has %v items", n, got[0].Value.Value())
			}
			done <- err
		}()
	}
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := relay.Open(); n > 2 {
		t.Errorf("%d connections for %d lists; want one to ask and one to hear", n, many)
	}
}

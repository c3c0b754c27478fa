package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

func TestKindsOfKeys(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	env := triggertest.Environment(t)
	for kind, c := range map[string]struct {
		put  func() error
		want int64
	}{
		"list": {func() error { return s.client.RPush(ctx, "list", 1, 1, 1).Err() }, 3},
		"set":  {func() error { return s.client.SAdd(ctx, "set", 1, 2, 2).Err() }, 2},
		"zset": {func() error {
			return s.client.ZAdd(ctx, "zset", redis.Z{Score: 1, Member: "a"}, redis.Z{Score: 2, Member: "b"}).Err()
		}, 2},
		"hash":   {func() error { return s.client.HSet(ctx, "hash", "a", 1, "b", 2, "c", 3).Err() }, 3},
		"string": {func() error { return s.client.Set(ctx, "string", "x", 0).Err() }, -1},
		"stream": {func() error {
			return s.client.XAdd(ctx, &redis.XAddArgs{Stream: "stream", Values: []string{"a", "b"}}).Err()
		}, -1},
	} {
		made := build(t, env, New, map[string]string{"address": s.address, "listName": kind})
		if got := read(t, made); got != 0 {
			t.Errorf("a %s that is not there has %d items", kind, got)
		}
		woken := observe(t, made, trigger.Idle)
		drain(woken)
		begin := time.Now()
		if err := c.put(); err != nil {
			t.Fatal(err)
		}
		<-woken
		if took := time.Since(begin); took > time.Second {
			t.Errorf("of a %s was told after %s", kind, took)
		}
		if c.want >= 0 {
			if got := read(t, made); got != c.want {
				t.Errorf("a %s has %d items; want %d", kind, got, c.want)
			}
		} else if got, err := made.Read(ctx); err == nil {
			t.Errorf("a %s has %v items; want an error", kind, got)
		}
	}
}

func TestEveryItemIsToldOf(t *testing.T) {
	s := start(t)
	for name, mode := range map[string]trigger.Mode{"idle": trigger.Idle, "active": trigger.Active} {
		made := build(t, triggertest.Environment(t), New, map[string]string{"address": s.address, "listName": name})
		woken := observe(t, made, mode)
		items := 50
		if mode == trigger.Active {
			items = 5
		}
		// However they fall among the pauses, the last wake comes after the last item.
		for n := 1; n <= items; n++ {
			if err := s.client.RPush(t.Context(), name, n).Err(); err != nil {
				t.Fatal(err)
			}
			awaitWake(t, woken, func() bool { return read(t, made) == int64(n) })
			<-time.After(time.Duration(n%7) * 13 * time.Millisecond)
		}
	}
}

func TestWakesAreBounded(t *testing.T) {
	s := start(t)
	made := build(t, triggertest.Environment(t), New, map[string]string{"address": s.address, "listName": "busy"})
	wakes := make(chan struct{}, 1000)
	defer made.(trigger.Pusher).Watch(trigger.Idle, func() { wakes <- struct{}{} })()
	<-wakes
	items := 0
	for end := time.After(time.Second); ; items++ {
		select {
		case <-end:
			if n := len(wakes); n < 2 || n > 15 {
				t.Errorf("woken %d times by %d items in a second; want about 10", n, items)
			}
			return
		default:
			s.client.RPush(t.Context(), "busy", 1)
		}
	}
}

func TestNoWakeIsLostWhenTheWayIsCut(t *testing.T) {
	s := start(t)
	relay := process.NewRelay(t, s.address)
	made := build(t, triggertest.Environment(t), New, map[string]string{"address": relay.Address, "listName": "jobs"})
	woken := observe(t, made, trigger.Idle)
	<-woken
	drain(woken)
	for n := range 3 {
		relay.Cut()
		fill(t, s.client, "jobs", n+1)
		relay.Heal()
		awaitWake(t, woken, func() bool {
			got, err := made.Read(t.Context())
			return err == nil && got[0].Value.Value() == int64(n+1)
		})
	}
}

func TestNothingLeaksThroughHundredsOfReconnects(t *testing.T) {
	s := start(t)
	relay := process.NewRelay(t, s.address)
	env := triggertest.Environment(t)
	made := build(t, env, New, map[string]string{"address": relay.Address, "listName": "jobs"})
	for n := range 20 {
		more := build(t, env, NewStreams, map[string]string{"address": relay.Address, "stream": fmt.Sprint(n)})
		defer more.(trigger.Pusher).Watch(trigger.Mode(n%2), func() {})()
	}
	relay.Churn(t, func(ctx context.Context) error {
		_, err := made.Read(ctx)
		return err
	})
	eventually(t, "there are two connections", func() error {
		if _, err := made.Read(t.Context()); err != nil {
			return err
		}
		if n := relay.Open(); n != 2 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

// silent accepts connections, greets them, and says no more.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for n := 0; ; n++ {
					if _, err := readValue(r, 0); err != nil {
						return
					}
					if n < 2 {
						_, _ = conn.Write([]byte("+OK\r\n"))
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestServersThatFallSilentAreLeft(t *testing.T) {
	node := redis.NewClient(&redis.Options{Addr: silent(t)})
	defer func() { _ = node.Close() }()
	to, err := connect(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	err = to.follow(t.Context(), interest{question: question{key: "jobs"}}, func() { t.Error("it wakes") })
	if !errors.Is(err, errSilent) || to.lives() {
		t.Errorf("following fails with %v, and the connection lives: %v; want it closed by silence", err, to.lives())
	}
}

func TestManyKeysAreReviewedMoreSeldom(t *testing.T) {
	for keys, want := range map[int]time.Duration{1: 10 * time.Second, 100: 10 * time.Second, 300: 30 * time.Second, 5000: time.Minute} {
		tr := &tracker{followers: map[string]map[chan struct{}]struct{}{}}
		for k := range keys {
			tr.add(strconv.Itoa(k), make(chan struct{}))
		}
		if got := tr.review(); got != want {
			t.Errorf("each of %d keys is asked about every %s, want %s", keys, got, want)
		}
	}
}

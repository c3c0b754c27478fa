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

// A testCluster is three servers that share the slots.
type testCluster struct {
	nodes     []*testServer
	addresses string
	client    *redis.ClusterClient
}

func startCluster(t testing.TB) *testCluster {
	t.Helper()
	c := &testCluster{}
	var addresses []string
	for _, node := range servers.RedisCluster(t) {
		c.nodes = append(c.nodes, served(t, node))
		addresses = append(addresses, node.Address)
	}
	c.addresses = strings.Join(addresses, ",")
	c.client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addresses})
	t.Cleanup(func() { _ = c.client.Close() })
	return c
}

// eventually waits until a check passes.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	for deadline := time.After(30 * time.Second); ; {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("it does not come about that %s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestCluster(t *testing.T) {
	c := startCluster(t)
	t.Run("list", func(t *testing.T) {
		subject := listSubject(t, c.client)
		subject.Type, subject.Build = "redis-cluster", NewCluster
		subject.Metadata["addresses"] = c.addresses
		subject.Down = map[string]string{"addresses": "127.0.0.1:" + process.Port(t)}
		triggertest.Run(t, subject)
	})
	for name, subject := range streamSubjects(t, c.client) {
		t.Run("stream by "+name, func(t *testing.T) {
			subject.Type, subject.Build = "redis-cluster-streams", NewClusterStreams
			subject.Metadata["addresses"] = c.nodes[1].address // which tells of the others
			subject.Variant = true
			triggertest.Run(t, subject)
		})
	}
	t.Run("every key is told of by the server that has it", c.testEveryKey)
	t.Run("a list that moves is told of", c.testMove)
}

func (c *testCluster) testEveryKey(t *testing.T) {
	env := triggertest.Environment(t)
	made, woken := map[string]trigger.Source{}, map[string]chan struct{}{}
	for n := range 30 {
		key := fmt.Sprint("k", n)
		made[key] = build(t, env, NewCluster, map[string]string{"addresses": c.addresses, "listName": key})
		woken[key] = observe(t, made[key], trigger.Idle)
	}
	for key, source := range made {
		<-woken[key]
		fill(t, c.client, key, 3)
		awaitWake(t, woken[key], func() bool { return read(t, source) == 3 })
	}
}

// testMove has a slot without keys change hands, of which no server tells those who follow its keys.
func (c *testCluster) testMove(t *testing.T) {
	source := build(t, triggertest.Environment(t), NewCluster, map[string]string{"addresses": c.addresses, "listName": "moving"})
	woken := observe(t, source, trigger.Idle)
	<-woken
	if got := read(t, source); got != 0 {
		t.Fatalf("a list that is not there has %d items", got)
	}
	slot, err := c.client.ClusterKeySlot(t.Context(), "moving").Result()
	if err != nil {
		t.Fatal(err)
	}
	owner := int(slot) * 3 / 16384
	to, err := c.nodes[(owner+1)%3].client.Do(t.Context(), "CLUSTER", "MYID").Text()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 { // who gets it is told first
		node := c.nodes[(owner+1+n)%3]
		if err := node.client.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "NODE", to).Err(); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, c.client, "moving", 3)
	awaitWake(t, woken, func() bool { return read(t, source) == 3 })
	for range 3 { // and by the new owner without delay
		drain(woken)
		begin := time.Now()
		c.client.RPush(t.Context(), "moving", "more")
		<-woken
		if took := time.Since(begin); took > time.Second {
			t.Errorf("told after %s", took)
		}
	}
}

func observe(t testing.TB, source trigger.Source, mode trigger.Mode) chan struct{} {
	t.Helper()
	woken := make(chan struct{}, 1)
	t.Cleanup(source.(trigger.Pusher).Watch(mode, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}))
	return woken
}

// awaitWake waits for a wake after which a check holds.
func awaitWake(t testing.TB, woken <-chan struct{}, check func() bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case <-woken:
			if check() {
				return
			}
		case <-deadline:
			t.Fatal("nobody told of work")
		}
	}
}

// drain forgets wakes until none came for a while.
func drain(woken <-chan struct{}) {
	for {
		select {
		case <-woken:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisClient connects as the environment says, to one server, a cluster, or what sentinels name.
func redisClient(mode string) redis.UniversalClient {
	password, addresses := os.Getenv("REDIS_PASSWORD"), redisAddresses()
	switch strings.ToUpper(mode) {
	case "CLUSTER":
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: addresses, Password: password})
	case "SENTINEL":
		return redis.NewFailoverClient(&redis.FailoverOptions{
			SentinelAddrs: addresses, Password: password,
			MasterName: os.Getenv("REDIS_SENTINEL_MASTER"), SentinelPassword: os.Getenv("REDIS_SENTINEL_PASSWORD"),
		})
	default:
		return redis.NewClient(&redis.Options{Addr: append(addresses, "")[0], Password: password})
	}
}

// redisAddresses come whole or as hosts and ports, parted by commas.
func redisAddresses() []string {
	list := func(names ...string) []string {
		for _, name := range names {
			if text := os.Getenv(name); text != "" {
				all := strings.Split(text, ",")
				for i := range all {
					all[i] = strings.TrimSpace(all[i])
				}
				return all
			}
		}
		return nil
	}
	if whole := list("REDIS_ADDRESS", "REDIS_ADDRESSES"); whole != nil {
		for i := range whole {
			if !strings.Contains(whole[i], ":") {
				whole[i] += ":6379"
			}
		}
		return whole
	}
	hosts, ports := list("REDIS_HOST", "REDIS_HOSTS"), list("REDIS_PORT", "REDIS_PORTS")
	if len(hosts) != len(ports) {
		return nil
	}
	for i := range hosts {
		hosts[i] += ":" + ports[i]
	}
	return hosts
}

// redisLists writes so many items to a list, or reads them one by one.
func redisLists(ctx context.Context, args []string) error {
	list := os.Getenv("LIST_NAME")
	if list == "" {
		return errors.New("no list is named")
	}
	client := redisClient(os.Getenv("REDIS_MODE"))
	if first(args) == "write" {
		count, err := number("NO_LIST_ITEMS_TO_WRITE", 100)
		if err != nil {
			return err
		}
		for i := range count {
			if err := client.LPush(ctx, list, i).Err(); err != nil {
				return err
			}
			if os.Getenv("REDIS_MODE") == "" {
				continue
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	took, err := number("READ_PROCESS_TIME", 1000)
	if err != nil {
		return err
	}
	for {
		if err := client.LPop(ctx, list).Err(); err != nil && !errors.Is(err, redis.Nil) {
			fmt.Fprintln(os.Stderr, "reading:", err)
		}
		if err := pause(ctx, time.Duration(took)*time.Millisecond); err != nil {
			return err
		}
	}
}

// redisStreams produces entries, or consumes them in a group and acknowledges them when no more come.
func redisStreams(ctx context.Context, args []string) error {
	client, stream := redisClient(os.Getenv("REDIS_MODE")), os.Getenv("REDIS_STREAM_NAME")
	if first(args) == "producer" {
		count, err := number("NUM_MESSAGES", 0)
		if err != nil {
			return err
		}
		for i := range count {
			if err := client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: map[string]any{"no": i + 1}}).Err(); err != nil {
				return err
			}
		}
		return nil
	}
	c := &consumer{client: client, stream: stream, group: os.Getenv("REDIS_STREAM_CONSUMER_GROUP_NAME")}
	c.remove, _ = strconv.ParseBool(os.Getenv("DELETE_MESSAGES"))
	return c.run(ctx)
}

// consumer is one of a group.
type consumer struct {
	client        redis.UniversalClient
	stream, group string
	remove        bool // what is acknowledged

	mu  sync.Mutex // over ids
	ids []string
}

func (c *consumer) run(ctx context.Context) error {
	if err := c.client.XGroupCreate(ctx, c.stream, c.group, "0").Err(); err != nil && !strings.Contains(err.Error(), "BUSYGROUP") {
		return err
	}
	go c.acknowledge(ctx)
	const between = 500 * time.Millisecond
	for {
		read, err := c.client.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: c.group, Consumer: "consumer", Streams: []string{c.stream, ">"}, Count: 1,
		}).Result()
		if err != nil {
			return err
		}
		for _, entry := range read[0].Messages {
			c.mu.Lock()
			c.ids = append(c.ids, entry.ID)
			c.mu.Unlock()
		}
		if err := pause(ctx, between); err != nil {
			return err
		}
	}
}

// acknowledge waits until the number of pending entries stays the same, and ten seconds more: the tests
// rely on a consumer that is slow to acknowledge.
func (c *consumer) acknowledge(ctx context.Context) {
	var last int64
	for pause(ctx, 2*time.Second) == nil {
		pending, err := c.client.XPending(ctx, c.stream, c.group).Result()
		if err != nil || pending.Count == 0 {
			continue
		}
		if pending.Count == last && pause(ctx, 10*time.Second) == nil {
			c.mu.Lock()
			if len(c.ids) > 0 {
				c.client.XAck(ctx, c.stream, c.group, c.ids...)
				if c.remove {
					c.client.XDel(ctx, c.stream, c.ids...)
				}
			}
			c.mu.Unlock()
		}
		last = pending.Count
	}
}

package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// session watches all keys. The client has one stream for all watches whose contexts say the same.
func (c *cluster) session(ctx context.Context, h *endpoint.Hub[interest]) error {
	client, err := c.connected(ctx)
	if err != nil {
		return err
	}
	ctx = clientv3.WithRequireLeader(ctx)
	return h.Each(ctx, func(ctx context.Context, key interest) { c.follow(ctx, client, h, key) })
}

// follow has a key watched as long as it can.
func (c *cluster) follow(ctx context.Context, client *clientv3.Client, h *endpoint.Hub[interest], key interest) {
	pause, failing := time.Duration(0), false
	for {
		begin := time.Now()
		err := watch(ctx, client, h, key)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > patience {
			pause, failing = 0, false
		}
		if !failing {
			c.env.Log.Warn("watching a key of etcd: it is polled until that works again", "key", key.key, "error", err)
		}
		failing = true
		if coded, is := errors.AsType[interface {
			error
			Code() codes.Code
		}](err); is && coded.Code() == codes.Unavailable {
			err = endpoint.ErrLost
		}
		pause = c.env.Shared.Pause(pause, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// watch wakes by changes of a key until the watch ends, or nothing is heard of it any more: its server
// may be cut off from the others, which another one is not.
//
// The client takes up a watch again where it was, so that no change is missed when a connection breaks.
func watch(ctx context.Context, client *clientv3.Client, h *endpoint.Hub[interest], key interest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := client.Watch(ctx, key.key, clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	silent := time.NewTimer(key.silence)
	defer silent.Stop()
	var (
		last time.Time        // of the wakes
		due  <-chan time.Time // for the next, if there was a change since
	)
	for {
		select {
		case <-silent.C:
			return errEnded
		case last = <-due:
			due = nil
			h.Wake(key)
		case change, ok := <-changes:
			if !ok {
				return errEnded
			}
			if err := change.Err(); err != nil {
				return err
			}
			silent.Reset(key.silence)
			wait := later - time.Since(last)
			switch {
			case change.Created: // what came before went unseen
				h.Wake(key)
			case len(change.Events) == 0 || due != nil:
			case key.mode == trigger.Idle || wait <= 0:
				last = time.Now()
				h.Wake(key)
			default:
				due = time.After(wait)
			}
		}
	}
}

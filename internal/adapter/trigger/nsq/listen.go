package nsq

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// soon and later are how long a topic is not listened to after a message: each message that is
	// heard is a copy.
	soon  = 200 * time.Millisecond
	later = time.Second
	// review is how often it is looked up who has a topic, and whether it may still be listened to.
	review = 5 * time.Second
	// retry is when a topic that may not be listened to is tried again.
	retry = 2 * time.Second
	// patience is how long connecting and subscribing may take, and how long a server may be silent
	// that sends a heartbeat every few seconds.
	patience  = 5 * time.Second
	heartbeat = 10 * time.Second
	silence   = 3 * heartbeat
	// longest is the largest frame that is taken, of which nothing is kept.
	longest = 64 << 20
)

// plain is what names of topics are made of that stay.
var plain = regexp.MustCompile(`^[.a-zA-Z0-9_-]{1,64}$`)

// The kinds of frames.
const (
	frameResponse = 0
	frameError    = 1
	frameMessage  = 2
)

// An interest is what is watched.
type interest struct {
	channel
	mode trigger.Mode
}

func (c *cluster) session(ctx context.Context, h *endpoint.Hub[interest]) error {
	return h.Each(ctx, func(ctx context.Context, key interest) {
		for ctx.Err() == nil {
			if nodes := c.audible(ctx, key.channel); len(nodes) == 0 {
				c.poll(ctx, h, key)
			} else if err := c.listen(ctx, h, key, nodes); err != nil && ctx.Err() == nil {
				c.env.Log.Debug("listening to a topic of NSQ: it is polled instead", "topic", key.topic, "error", err)
				c.poll(ctx, h, key)
			}
		}
	})
}

// poll wakes a key by changes of its depth, until it is time to try to listen again.
func (c *cluster) poll(ctx context.Context, h *endpoint.Hub[interest], key interest) {
	defer c.poller.Watch(key.channel, func() { h.Wake(key) })()
	select {
	case <-ctx.Done():
	case <-time.After(c.env.Shared.Rest(retry)):
	}
}

// audible returns the nodes of a topic, if all of them may be listened to.
//
// A channel of ours must never be a topic's only one: a topic keeps its messages until it has a
// channel, and ours would take what the first consumers are to get. So the trigger's channel has to be
// there, and be one that stays when its consumers go.
func (c *cluster) audible(ctx context.Context, ch channel) map[node]bool {
	if !plain.MatchString(ch.topic) || strings.HasSuffix(ch.name, ephemeral) {
		return nil
	}
	state, err := c.topics.Do(ctx, ch.topic)
	if err != nil || state.err != nil {
		return nil
	}
	nodes := map[node]bool{}
	for at, s := range state.nodes {
		if s == nil {
			return nil
		}
		if _, _, found := s.channel(ch.name); !found {
			return nil
		}
		nodes[at] = true
	}
	return nodes
}

// listen wakes a key by the first message to its topic. It returns after that and a pause, or when the
// nodes have changed.
func (c *cluster) listen(ctx context.Context, h *endpoint.Hub[interest], key interest, nodes map[node]bool) error {
	mine, cancel := context.WithCancel(ctx)
	var ears sync.WaitGroup
	defer func() {
		cancel()
		ears.Wait()
	}()
	own := "ebb-" + rand.Text() + ephemeral
	ready, heard := make(chan struct{}, len(nodes)), make(chan error, len(nodes))
	for at := range nodes {
		ears.Go(func() { heard <- c.hear(mine, at, channel{key.topic, own}, ready) })
	}
	for range nodes {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-heard:
			if err == nil { // a message, before all could listen
				h.Wake(key)
				rest(ctx, key.mode)
			}
			return err
		case <-ready:
		}
	}
	h.Wake(key) // what came before went unheard
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-heard:
			if err != nil {
				return err
			}
			h.Wake(key)
			cancel()
			rest(ctx, key.mode)
			return nil
		case <-time.After(review):
			if !maps.Equal(nodes, c.audible(ctx, key.channel)) {
				return nil
			}
		}
	}
}

// rest leaves a topic alone for a while.
func rest(ctx context.Context, mode trigger.Mode) {
	pause := soon
	if mode == trigger.Active {
		pause = later
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// hear returns nil after the first message on a channel of ours.
func (c *cluster) hear(ctx context.Context, at node, ch channel, ready chan<- struct{}) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	conn, err := c.env.Dial(limit, "tcp", at.tcp)
	cancel()
	if err != nil {
		return fmt.Errorf("connecting to nsqd: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if err := subscribe(conn, ch); err != nil {
		return fmt.Errorf("subscribing to nsqd: %w", err)
	}
	ready <- struct{}{}
	for {
		if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		kind, start, err := frame(conn)
		switch {
		case err != nil:
			return fmt.Errorf("hearing from nsqd: %w", err)
		case kind == frameMessage:
			return nil
		case kind == frameError:
			return fmt.Errorf("hearing from nsqd: %s", start)
		case bytes.HasPrefix(start, []byte("_heartbeat_")):
			if _, err := io.WriteString(conn, "NOP\n"); err != nil {
				return err
			}
		}
	}
}

// subscribe makes a channel and asks for one message of it.
func subscribe(conn net.Conn, ch channel) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	identity := fmt.Sprintf(`{"client_id":"ebb","user_agent":"ebb","heartbeat_interval":%d,"output_buffer_timeout":-1}`, heartbeat.Milliseconds())
	var b bytes.Buffer
	b.WriteString("  V2IDENTIFY\n")
	_ = binary.Write(&b, binary.BigEndian, uint32(len(identity)))
	fmt.Fprintf(&b, "%sSUB %s %s\n", identity, ch.topic, ch.name)
	if _, err := conn.Write(b.Bytes()); err != nil {
		return err
	}
	for range 2 { // to IDENTIFY and to SUB
		kind, start, err := frame(conn)
		if err != nil {
			return err
		}
		if kind != frameResponse || string(start) != "OK" {
			return fmt.Errorf("it answers %q", start)
		}
	}
	if _, err := io.WriteString(conn, "RDY 1\n"); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// frame reads one and returns how it begins.
func frame(conn io.Reader) (kind uint32, start []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, nil, err
	}
	size := int64(binary.BigEndian.Uint32(head[:4])) - 4
	if size < 0 || size > longest {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	start = make([]byte, min(size, 128))
	if _, err := io.ReadFull(conn, start); err != nil {
		return 0, nil, err
	}
	_, err = io.CopyN(io.Discard, conn, size-int64(len(start)))
	return binary.BigEndian.Uint32(head[4:]), start, err
}

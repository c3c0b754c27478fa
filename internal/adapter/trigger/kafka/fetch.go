package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// wait is how long a broker holds a fetch that finds nothing.
	wait = 10 * time.Second
	// rest is the least time between two fetches that found something: each brings a batch of records
	// along, which nobody needs.
	rest = 100 * time.Millisecond
	// retry is when topics that were not there are looked for again.
	retry = 5 * time.Second
)

// denied remembers the topics that may not be read, to say so once.
type denied struct {
	mu     sync.Mutex // guards topics
	topics map[string]bool
}

func (d *denied) add(topic string) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.topics == nil {
		d.topics = map[string]bool{}
	}
	first = !d.topics[topic]
	d.topics[topic] = true
	return first
}

// An end is a partition and the offset the next record will have.
type end struct {
	place
	topicID [16]byte
	offset  int64
}

// ends are those of all watched topics, by the broker that leads them.
type ends map[int32][]*end

// session waits at the ends of the watched topics.
func (c *cluster) session(ctx context.Context, h *endpoint.Hub[string]) error {
	armed, refused, known := map[string]bool{}, map[string]bool{}, map[place]*end{}
	for {
		topics, changed := h.Keys()
		topics = slices.DeleteFunc(topics, func(topic string) bool { return refused[topic] })
		found, err := c.find(ctx, topics, known)
		if err != nil {
			return err
		}
		before := maps.Clone(armed)
		clear(armed)
		clear(known)
		for _, partitions := range found {
			for _, e := range partitions {
				armed[e.topic], known[e.place] = true, e
			}
		}
		for topic := range armed {
			if !before[topic] {
				h.Wake(topic) // what came before its end was found
			}
		}
		err = c.await(ctx, h, found, func() bool { return fresh(h, armed, refused) }, changed)
		if topic, ok := errors.AsType[errDenied](err); ok {
			refused[string(topic)] = true
			if c.denied.add(string(topic)) {
				c.log.Warn("watching a topic of Kafka: it may not be read, so its lag is polled; allow READ on it to be told at once", "topic", string(topic))
			}
		} else if err != nil {
			return err
		}
	}
}

// fresh tells whether a topic is watched that is not waited for.
func fresh(h *endpoint.Hub[string], armed, refused map[string]bool) bool {
	topics, _ := h.Keys()
	for _, topic := range topics {
		if !armed[topic] && !refused[topic] {
			return true
		}
	}
	return false
}

// errDenied is the name of a topic that may not be read.
type errDenied string

func (e errDenied) Error() string { return fmt.Sprintf("reading topic %s is not allowed", string(e)) }

// find looks up where the topics end and who leads their partitions. Ends that are known are kept, as
// what came since has not been told of.
func (c *cluster) find(ctx context.Context, topics []string, known map[place]*end) (ends, error) {
	found := ends{}
	if len(topics) == 0 {
		return found, nil
	}
	slices.Sort(topics)
	details, err := c.admin.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("describing topics: %w", err)
	}
	listed, err := c.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("listing the ends of topics: %w", err)
	}
	for _, topic := range topics {
		for id, detail := range details[topic].Partitions {
			offset, ok := listed.Lookup(topic, id)
			if !ok || offset.Err != nil || detail.Err != nil || detail.Leader < 0 {
				continue
			}
			e := &end{place: place{topic, id}, topicID: details[topic].ID, offset: offset.Offset}
			if was := known[e.place]; was != nil && was.topicID == e.topicID {
				e = was
			}
			found[detail.Leader] = append(found[detail.Leader], e)
		}
	}
	return found, nil
}

// await follows the ends until a broker fails or topics are missing among them.
func (c *cluster) await(ctx context.Context, h *endpoint.Hub[string], found ends, missing func() bool, changed <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var brokers sync.WaitGroup
	defer func() {
		cancel(nil)
		brokers.Wait()
	}()
	for _, broker := range slices.Sorted(maps.Keys(found)) {
		brokers.Go(func() {
			if err := c.follow(ctx, h, broker, found[broker]); err != nil {
				cancel(err)
			}
		})
	}
	var late <-chan time.Time
	if missing() {
		late = time.After(retry) // topics that are not there yet
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			return nil
		case <-changed:
			if missing() {
				return nil
			}
			_, changed = h.Keys()
		}
	}
}

// follow has one broker hold a fetch at the ends it leads, and wakes topics whose end has moved.
func (c *cluster) follow(ctx context.Context, h *endpoint.Hub[string], broker int32, partitions []*end) error {
	for {
		response, err := c.client.Broker(int(broker)).Request(ctx, fetch(partitions))
		if err != nil {
			return fmt.Errorf("fetching from broker %d: %w", broker, err)
		}
		moved, err := move(partitions, response.(*kmsg.FetchResponse))
		for _, topic := range moved {
			h.Wake(topic)
		}
		if err != nil {
			return err
		}
		if len(moved) == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}

// fetch returns a request that is answered when a record comes to one of the partitions, with little
// more than that record.
func fetch(partitions []*end) *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis = int32(wait.Milliseconds())
	request.MinBytes, request.MaxBytes = 1, 1
	at := map[string]int{}
	for _, e := range partitions {
		i, ok := at[e.topic]
		if !ok {
			i = len(request.Topics)
			at[e.topic] = i
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic, topic.TopicID = e.topic, e.topicID
			request.Topics = append(request.Topics, topic)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = e.id, e.offset, 1
		request.Topics[i].Partitions = append(request.Topics[i].Partitions, p)
	}
	return request
}

// move sets the ends to where the broker says they are now, and returns the topics that moved.
func move(partitions []*end, response *kmsg.FetchResponse) (moved []string, err error) {
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetching: %w", err)
	}
	byName, byID := map[place]*end{}, map[[16]byte]string{}
	for _, e := range partitions {
		byName[e.place] = e
		byID[e.topicID] = e.topic
	}
	for _, topic := range response.Topics {
		name := topic.Topic
		if name == "" {
			name = byID[topic.TopicID]
		}
		for _, p := range topic.Partitions {
			e := byName[place{name, p.Partition}]
			if e == nil {
				continue
			}
			switch failure := kerr.ErrorForCode(p.ErrorCode); {
			case errors.Is(failure, kerr.TopicAuthorizationFailed):
				return moved, errDenied(name)
			case failure != nil:
				return moved, fmt.Errorf("fetching from topic %s: %w", name, failure)
			case p.HighWatermark > e.offset:
				e.offset = p.HighWatermark
				moved = append(moved, name)
			}
		}
	}
	return moved, nil
}

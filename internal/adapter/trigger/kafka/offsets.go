package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a query without topics is about.
const (
	committed  = "committed"  // those the group has committed to; all if it has not
	everything = "everything" // all, if the group has members
)

// A query asks for the offsets of a group.
type query struct {
	group  string
	topics string // joined by commas, which no topic has in its name
	absent string // committed or everything; what it is about if it has no topics
	starts bool   // where partitions begin is asked for where the group has not committed
}

func newQuery(group string, topics []string, absent string, starts bool) query {
	return query{group, strings.Join(topics, ","), absent, starts}
}

func (q query) names() []string {
	if q.topics == "" {
		return nil
	}
	return strings.Split(q.topics, ",")
}

// An answer is what the cluster said.
type answer struct {
	topics    []string
	committed map[place]int64
	ends      kadm.ListedOffsets
	starts    kadm.ListedOffsets
	err       error
}

// partitions puts together what is known; strict has topics that are not there be an error.
func (a *answer) partitions(limit []int32, strict bool) ([]partition, error) {
	var out []partition
	for _, topic := range a.topics {
		before := len(out)
		for _, id := range slices.Sorted(maps.Keys(a.ends[topic])) {
			end := a.ends[topic][id]
			if end.Err != nil {
				if errors.Is(end.Err, kerr.UnknownTopicOrPartition) && !strict {
					continue
				}
				return nil, fmt.Errorf("listing the end of topic %s: %w", topic, end.Err)
			}
			if !wanted(limit, id) {
				continue
			}
			p := partition{topic: topic, id: id, committed: none, start: none, end: end.Offset, known: true}
			if offset, ok := a.committed[place{topic, id}]; ok {
				p.committed = offset
			}
			if start, ok := a.starts.Lookup(topic, id); ok && start.Err == nil {
				p.start = start.Offset
			}
			out = append(out, p)
		}
		if strict && len(out) == before {
			return nil, fmt.Errorf("expected at least one active partition within the topic '%s'", topic)
		}
	}
	return out, nil
}

// ask answers queries of many groups by a few requests: the commits of all groups, and the ends of
// all topics.
func (c *cluster) ask(ctx context.Context, queries []query) (map[query]*answer, error) {
	commits, failed := c.commits(ctx, queries)
	answers := make(map[query]*answer, len(queries))
	topics := map[string]bool{}
	all := once(func() ([]string, error) { return c.all(ctx) })
	for _, q := range queries {
		a := &answer{committed: commits[q.group], err: failed[q.group]}
		answers[q] = a
		if a.err == nil {
			a.topics, a.err = c.about(ctx, q, a.committed, all)
		}
		for _, topic := range a.topics {
			topics[topic] = true
		}
	}
	if len(topics) == 0 {
		return answers, nil
	}
	ends, err := c.admin.ListEndOffsets(ctx, slices.Sorted(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("listing the ends of topics: %w", err)
	}
	without := map[string]bool{}
	for q, a := range answers {
		a.ends = ends
		if q.starts {
			a.uncommitted(without)
		}
	}
	if len(without) == 0 {
		return answers, nil
	}
	starts, err := c.admin.ListStartOffsets(ctx, slices.Sorted(maps.Keys(without))...)
	if err != nil {
		c.log.Warn("listing the starts of topics: lag is counted from zero", "error", err)
	}
	for _, a := range answers {
		a.starts = starts
	}
	return answers, nil
}

// uncommitted notes the topics with a partition that the group has not committed to.
func (a *answer) uncommitted(topics map[string]bool) {
	for _, topic := range a.topics {
		for id := range a.ends[topic] {
			if offset, ok := a.committed[place{topic, id}]; !ok || offset == none {
				topics[topic] = true
			}
		}
	}
}

// once asks once only.
func once(ask func() ([]string, error)) func() ([]string, error) {
	var names []string
	var err error
	asked := false
	return func() ([]string, error) {
		if !asked {
			asked = true
			names, err = ask()
		}
		return names, err
	}
}

// about returns the topics that a query is about.
func (c *cluster) about(ctx context.Context, q query, commits map[place]int64, all func() ([]string, error)) ([]string, error) {
	if q.topics != "" {
		return q.names(), nil
	}
	if q.absent == everything {
		groups, err := c.admin.DescribeGroups(ctx, q.group)
		if err != nil {
			return nil, fmt.Errorf("describing the group: %w", err)
		}
		if group := groups[q.group]; len(group.Members) == 0 {
			return nil, fmt.Errorf("no active members in group %s, group-state is %s", q.group, group.State)
		}
		return all()
	}
	topics := map[string]bool{}
	for at := range commits {
		topics[at.topic] = true
	}
	if len(topics) == 0 {
		return all()
	}
	return slices.Sorted(maps.Keys(topics)), nil
}

// all returns the names of all topics.
func (c *cluster) all(ctx context.Context) ([]string, error) {
	topics, err := c.admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	return topics.Names(), nil
}

// commits asks for all commits of the queries' groups, and tells of the groups whose are not to be had.
func (c *cluster) commits(ctx context.Context, queries []query) (commits map[string]map[place]int64, failed map[string]error) {
	commits, failed = map[string]map[place]int64{}, map[string]error{}
	request := kmsg.NewPtrOffsetFetchRequest()
	for _, q := range queries {
		if commits[q.group] == nil {
			commits[q.group] = map[place]int64{}
			group := kmsg.NewOffsetFetchRequestGroup()
			group.Group = q.group
			request.Groups = append(request.Groups, group)
		}
	}
	for _, shard := range c.client.RequestSharded(ctx, request) {
		if shard.Err != nil {
			for _, group := range shard.Req.(*kmsg.OffsetFetchRequest).Groups {
				failed[group.Group] = fmt.Errorf("fetching commits: %w", shard.Err)
			}
			continue
		}
		for _, group := range shard.Resp.(*kmsg.OffsetFetchResponse).Groups {
			// A group that is not there has committed nothing.
			if err := kerr.ErrorForCode(group.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
				failed[group.Group] = fmt.Errorf("fetching commits: %w", err)
			}
			for _, topic := range group.Topics {
				for _, p := range topic.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						failed[group.Group] = fmt.Errorf("fetching commits to topic %s: %w", topic.Topic, err)
					}
					commits[group.Group][place{topic.Topic, p.Partition}] = p.Offset
				}
			}
		}
	}
	return commits, failed
}

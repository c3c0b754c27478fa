package differential

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// A broker is a cluster that keeps to Kafka's protocol, with topics of three partitions.
type broker struct {
	addresses string
	client    *kgo.Client
	admin     *kadm.Client
	members   []*kgo.Client
}

func brokers(t *testing.T) *broker {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(3, "jobs", "other", "idle"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &broker{addresses: strings.Join(cluster.ListenAddrs(), ",")}
	b.client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	b.admin = kadm.NewClient(b.client)
	t.Cleanup(func() {
		for _, member := range b.members {
			member.Close()
		}
	})
	return b
}

// produce adds so many records to each partition of a topic.
func (b *broker) produce(topic string, each ...int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for partition, n := range each {
			for range n {
				r := &kgo.Record{Topic: topic, Partition: int32(partition), Value: []byte("work")}
				if err := b.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// commit has a group have read all there is in a topic.
func (b *broker) commit(group, topic string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		ends, err := b.admin.ListEndOffsets(t.Context(), topic)
		if err == nil {
			err = b.admin.CommitAllOffsets(t.Context(), group, ends.Offsets())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// lag has a group be behind by that many records on each partition.
func (b *broker) lag(group, topic string, each ...int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		b.commit(group, topic)(t)
		b.produce(topic, each...)(t)
	}
}

func TestKafka(t *testing.T) {
	covers(t, "kafka", "apache-kafka")
	for _, kind := range []string{"kafka", "apache-kafka"} {
		t.Run(kind, func(t *testing.T) {
			b := brokers(t)
			s := subject{
				Type: kind,
				Metadata: map[string]string{
					"bootstrapServers": b.addresses, "consumerGroup": "workers", "topic": "jobs", "lagThreshold": "5", "activationLagThreshold": "2", "version": "2.8.0",
				},
				Where: []string{"bootstrapServers", "consumerGroup"},
				Refused: []string{
					"bootstrapServers", "consumerGroup", "lagThreshold=0", "lagThreshold=-1", "lagThreshold=x", "activationLagThreshold=-1", "activationLagThreshold=x",
					"offsetResetPolicy=middle", "partitionLimitation=1-x", "allowIdleConsumers=perhaps", "tls=perhaps", "sasl=magic",
				},
				Try: map[string][]string{
					"offsetResetPolicy": {"latest", "earliest"}, "partitionLimitation": {"0", "1-2", "0,2", "7", "2-1", "0-", ","}, "scaleToZeroOnInvalidOffset": {"false"},
					"allowIdleConsumers": {"false"}, "excludePersistentLag": {"false"}, "limitToPartitionsWithLag": {"false"}, "ensureEvenDistributionOfPartitions": {"false"},
					"topic": {"other", "missing"}, "sasl": {"none", "plaintext"}, "tls": {"disable"}, "auth sasl": {"none"},
				},
			}
			if kind == "kafka" {
				s.Refused = append(s.Refused, "version=new", "fullMetadata=perhaps")
				s.Try["fullMetadata"], s.Try["version"] = []string{"false"}, []string{"1.0.0", "3.6.0", "0.11.0.2"}
			}
			b.compare(t, s)
			b.persistent(t, s)
		})
	}
}

func (b *broker) compare(t *testing.T, s subject) {
	t.Helper()
	with := func(pairs ...string) map[string]string {
		over := map[string]string{}
		for _, pair := range pairs {
			name, value, _ := strings.Cut(pair, "=")
			over[name] = value
		}
		return over
	}
	states := []state{
		{name: "nothing committed", set: b.commit("workers", "idle"), want: "3"}, // the brokers refuse a group that they never saw
		{name: "nothing committed and none wanted", over: with("scaleToZeroOnInvalidOffset=true"), want: "0"},
		{name: "nothing committed, from the earliest", set: b.produce("jobs", 4, 0, 1), over: with("offsetResetPolicy=earliest"), want: "5"},
		{name: "the same, and none wanted", over: with("offsetResetPolicy=earliest", "scaleToZeroOnInvalidOffset=true"), want: "0"},
		{name: "all read", set: b.commit("workers", "jobs"), want: "0"},
		{name: "two", set: b.lag("workers", "jobs", 1, 1, 0), want: "2"},
		{name: "three", set: b.lag("workers", "jobs", 1, 1, 1), want: "3"},
		{name: "eleven", set: b.lag("workers", "jobs", 9, 2), want: "11"},
		{name: "more than consumers can have", set: b.lag("workers", "jobs", 30, 2, 0), want: "15"},
		{name: "idle ones too", over: with("allowIdleConsumers=true"), want: "32"},
		{name: "as many as lag", over: with("limitToPartitionsWithLag=true"), want: "10"},
		{name: "evenly", over: with("ensureEvenDistributionOfPartitions=true")},
		{name: "evenly, idle ones too", over: with("ensureEvenDistributionOfPartitions=true", "allowIdleConsumers=true")},
		{name: "evenly, as many as lag", over: with("ensureEvenDistributionOfPartitions=true", "limitToPartitionsWithLag=true")},
		{name: "idle ones and as many as lag", over: with("allowIdleConsumers=true", "limitToPartitionsWithLag=true"), want: refused},
		{name: "one partition", over: with("partitionLimitation=1"), want: "2"},
		{name: "two partitions", over: with("partitionLimitation=1-2", "allowIdleConsumers=true"), want: "2"},
		{name: "no such partition", over: with("partitionLimitation=7")},
		{name: "as many as lag, without a topic", over: with("topic=", "limitToPartitionsWithLag=true"), want: refused},
		{name: "evenly without a topic", over: with("topic=", "ensureEvenDistributionOfPartitions=true")},
		{name: "no such topic", over: with("topic=missing")},
		{name: "several topics", set: b.lag("workers", "other", 1, 2, 3), over: with("topic=jobs,other")},
		{name: "topics of a group without members", over: with("topic=")},
		{name: "topics of a group with members", set: b.join("busy", terse{kgo.RangeBalancer()}), over: with("topic=", "consumerGroup=busy")},
		{name: "topics of a group with members of today", set: b.join("new", kgo.RangeBalancer()), over: with("topic=", "consumerGroup=new")},
		{name: "the same, one partition", over: with("topic=", "consumerGroup=busy", "partitionLimitation=1")},
		{name: "sasl said twice", over: with("sasl=none", "auth sasl=none")},
		{name: "sasl without a user", over: with("sasl=plaintext"), want: refused},
		{name: "sasl where there is none", over: with("sasl=plaintext", "auth username=a", "auth password=b"), want: fails},
		{name: "gssapi", over: with("sasl=gssapi")},
		{name: "half a certificate", over: with("tls=enable", "auth cert=x"), want: refused},
		{name: "TLS said twice", over: with("tls=disable", "auth tls=disable")},
		{name: "nobody there", over: with("bootstrapServers=127.0.0.1:" + process.Port(t)), want: fails},
	}
	for _, threshold := range []string{"1", "2", "3", "7", "10", "16", "32", "33"} {
		for _, rule := range []string{"", "allowIdleConsumers", "limitToPartitionsWithLag", "ensureEvenDistributionOfPartitions"} {
			over := with("lagThreshold="+threshold, rule+"=true")
			delete(over, "")
			states = append(states, state{name: fmt.Sprintf("a threshold of %s %s", threshold, rule), over: over})
		}
	}
	compare(t, s, append(states, state{name: "seven", set: b.lag("workers", "jobs", 3, 0, 4), want: "7"})...)
}

// join has a group have a member, which reads nothing new, as long as the brokers run.
func (b *broker) join(group string, balancer kgo.GroupBalancer) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		b.lag(group, "jobs", 2, 2)(t)
		member, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.addresses, ",")...), kgo.ConsumerGroup(group), kgo.ConsumeTopics("jobs"), kgo.DisableAutoCommit(), kgo.Balancers(balancer))
		if err != nil {
			t.Fatal(err)
		}
		b.members = append(b.members, member)
		for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
			groups, err := b.admin.DescribeGroups(t.Context(), group)
			if err == nil && len(groups[group].Members) == 1 && groups[group].State == "Stable" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody joins the group: %+v, %v", groups, err)
			}
		}
	}
}

// A terse balancer has members say no more of themselves than those of old do.
type terse struct{ kgo.GroupBalancer }

// JoinGroupMetadata implements kgo.GroupBalancer.
func (terse) JoinGroupMetadata(topics []string, _ map[string][]int32, _ int32) []byte {
	said := kmsg.NewConsumerMemberMetadata()
	said.Version, said.Topics = 0, topics
	return said.AppendTo(nil)
}

// persistent compares what is read one time after the other where lag that lasts does not count.
func (b *broker) persistent(t *testing.T, s subject) {
	t.Helper()
	over := map[string]string{"excludePersistentLag": "true"}
	c := s.config(t, over)
	ours, theirs := open(t, "ebb's", c, ebb), open(t, "KEDA's", c, keda)
	for i, step := range []func(*testing.T){
		b.lag("workers", "jobs", 3, 4, 0), nil, b.produce("jobs", 0, 0, 2), b.commit("workers", "jobs"), b.lag("workers", "jobs", 5, 1, 1), nil,
	} {
		t.Run(fmt.Sprint("lag that lasts, step ", i), func(t *testing.T) {
			tally.add(s.Type, t.Name())
			if step != nil {
				step(t)
			}
			// Before, both have seen where the group stands now, or it stands elsewhere.
			theirs := theirs(t)
			for deadline := time.Now().Add(patience); ; <-time.After(100 * time.Millisecond) {
				ours := ours(t)
				if ours.agrees(theirs) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("they differ:\n ebb: %s\nKEDA: %s", ours, theirs)
				}
			}
		})
	}
	t.Run("lag that lasts, at once", func(t *testing.T) {
		tally.add(s.Type, t.Name())
		b.lag("workers", "jobs", 2, 2, 2)(t)
		if a, b := ours(t), theirs(t); !a.agrees(b) {
			t.Errorf("they differ when first read:\n ebb: %s\nKEDA: %s", a, b)
		}
		if a, b := ours(t), theirs(t); a.agrees(b) || deliberate()[t.Name()] == "" {
			t.Errorf("read at once again, ebb finds %s and KEDA %s", a, b)
		}
	})
}

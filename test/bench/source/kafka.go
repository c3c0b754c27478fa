package source

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Kafka starts a cluster that keeps to Kafka's protocol, within this process: the distribution has none.
func (s *Servers) Kafka(ctx context.Context) (*Source, error) {
	const topic, group = "jobs", "workers"
	number, err := port()
	if err != nil {
		return nil, err
	}
	listen, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(listen), kfake.SeedTopics(3, topic))
	if err != nil {
		return nil, fmt.Errorf("starting a cluster of Kafka's protocol: %w", err)
	}
	s.later(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ProducerLinger(0))
	if err != nil {
		return nil, fmt.Errorf("making a client of Kafka: %w", err)
	}
	s.later(client.Close)
	admin := kadm.NewClient(client)
	source := &Source{
		Name: "Kafka (its protocol in Go)", Port: number, Kind: "kafka",
		Metadata: map[string]string{"bootstrapServers": strings.Join(cluster.ListenAddrs(), ","), "consumerGroup": group, "topic": topic, "lagThreshold": "5"},
		Put: func(ctx context.Context, n int) error {
			for range n {
				if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("work")}).FirstErr(); err != nil {
					return err
				}
			}
			return nil
		},
		Drain: func(ctx context.Context) error {
			ends, err := admin.ListEndOffsets(ctx, topic)
			if err != nil {
				return err
			}
			return admin.CommitAllOffsets(ctx, group, ends.Offsets())
		},
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return source, source.Drain(ctx)
}

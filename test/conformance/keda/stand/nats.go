package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// orders publishes to a stream, or takes five messages a second off it, fifty times.
func orders(ctx context.Context, args []string) error {
	connection, err := nats.Connect(os.Getenv("NATS_ADDRESS"))
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := connection.JetStream()
	if err != nil {
		return err
	}
	if first(args) == "publisher" {
		count, err := number("NUM_MESSAGES", 0)
		if err != nil {
			return err
		}
		for i := range count {
			if _, err := stream.Publish("ORDERS.scratch", fmt.Appendf(nil, "order %d", i+1)); err != nil {
				fmt.Fprintln(os.Stderr, "publishing:", err)
			}
		}
		return nil
	}
	subscription, err := stream.PullSubscribe("ORDERS.*", "PULL_CONSUMER")
	if err != nil {
		return err
	}
	const rounds, batch = 50, 5
	for range rounds {
		messages, err := subscription.Fetch(batch, nats.MaxWait(2*time.Second))
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := m.AckSync(); err != nil {
				return err
			}
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// natsTool is as much of the command line tool as the tests use.
func natsTool(_ context.Context, args []string) error {
	words, flags := parseFlags(args)
	context := filepath.Join(os.TempDir(), "nats-context")
	if strings.HasPrefix(strings.Join(words, " "), "context save ") {
		return os.WriteFile(context, []byte(flags["server"]), 0o600)
	}
	server, err := os.ReadFile(context)
	if err != nil {
		return fmt.Errorf("no context was saved: %w", err)
	}
	connection, err := nats.Connect(string(server))
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := connection.JetStream()
	if err != nil {
		return err
	}
	for command, do := range natsCommands {
		if rest, is := strings.CutPrefix(strings.Join(words, " "), command+" "); is {
			return do(connection, stream, append(strings.Fields(rest), ""), flags)
		}
	}
	return fmt.Errorf("no such command: %s", strings.Join(words, " "))
}

// natsCommands get the words that follow, at least two.
var natsCommands = map[string]func(*nats.Conn, nats.JetStreamContext, []string, map[string]string) error{
	"stream add": func(_ *nats.Conn, stream nats.JetStreamContext, words []string, flags map[string]string) error {
		replicas, err := strconv.Atoi(flags["replicas"])
		if err != nil {
			return err
		}
		_, err = stream.AddStream(&nats.StreamConfig{
			Name: words[0], Subjects: strings.Split(flags["subjects"], ","), Replicas: replicas, Storage: nats.MemoryStorage,
			Duplicates: 2 * time.Minute, AllowRollup: true, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
		})
		return err
	},
	"stream rm": func(_ *nats.Conn, stream nats.JetStreamContext, words []string, _ map[string]string) error {
		return stream.DeleteStream(words[0])
	},
	"consumer add": func(_ *nats.Conn, stream nats.JetStreamContext, words []string, flags map[string]string) error {
		pending, err := strconv.Atoi(flags["max-pending"])
		if err != nil {
			return err
		}
		_, err = stream.AddConsumer(words[0], &nats.ConsumerConfig{
			Durable: words[1], DeliverPolicy: nats.DeliverAllPolicy, AckPolicy: nats.AckExplicitPolicy,
			AckWait: 5 * time.Second, ReplayPolicy: nats.ReplayInstantPolicy, MaxDeliver: -1, MaxAckPending: pending,
		})
		return err
	},
	"consumer cluster step-down": func(connection *nats.Conn, _ nats.JetStreamContext, words []string, _ map[string]string) error {
		return stepDown(connection, words[0], words[1])
	},
}

// stepDown asks for another leader of a consumer.
func stepDown(connection *nats.Conn, stream, consumer string) error {
	answer, err := connection.Request(fmt.Sprintf("$JS.API.CONSUMER.LEADER.STEPDOWN.%s.%s", stream, consumer), nil, 5*time.Second)
	if err != nil {
		return err
	}
	var said struct {
		Error *struct{ Description string }
	}
	if err := json.Unmarshal(answer.Data, &said); err != nil {
		return err
	}
	if said.Error != nil {
		return errors.New(said.Error.Description)
	}
	return nil
}

// parseFlags parts words from flags, which are --name=value, --name value for server, or --name alone.
func parseFlags(args []string) (words []string, flags map[string]string) {
	flags = map[string]string{}
	for i := 0; i < len(args); i++ {
		name, is := strings.CutPrefix(args[i], "-")
		if !is {
			words = append(words, args[i])
			continue
		}
		name, value, _ := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		if name == "server" && value == "" && i+1 < len(args) {
			i++
			value = args[i]
		}
		flags[name] = value
	}
	return words, flags
}

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/nsqio/go-nsq"
	"github.com/nsqio/nsq/nsqd"
	"github.com/nsqio/nsq/nsqlookupd"
)

// queue produces messages of NSQ, or consumes them slowly.
func queue(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("queue", flag.ContinueOnError)
	mode, topic, channel := set.String("mode", "", ""), set.String("topic", "", ""), set.String("channel", "", "")
	took, count := set.Duration("sleep-duration", 0, ""), set.Int("message-count", 1, "")
	lookup, daemon := set.String("nsqlookupd-http-address", "", ""), set.String("nsqd-tcp-address", "", "")
	if err := set.Parse(args); err != nil {
		return err
	}
	if *mode == "producer" {
		producer, err := nsq.NewProducer(*daemon, nsq.NewConfig())
		if err != nil {
			return err
		}
		defer producer.Stop()
		for i := range *count {
			if err := producer.Publish(*topic, fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		return nil
	}
	consumer, err := nsq.NewConsumer(*topic, *channel, nsq.NewConfig())
	if err != nil {
		return err
	}
	consumer.AddHandler(nsq.HandlerFunc(func(*nsq.Message) error { return pause(ctx, *took) }))
	if err := consumer.ConnectToNSQLookupd(*lookup); err != nil {
		return err
	}
	<-ctx.Done()
	consumer.Stop()
	return nil
}

// nsqDaemon is a server that says its pod's address to nsqlookupd, which the first argument names.
func nsqDaemon(ctx context.Context, args []string) error {
	options := nsqd.NewOptions()
	options.DataPath, options.BroadcastAddress = os.TempDir(), os.Getenv("POD_IP")
	options.NSQLookupdTCPAddresses = args
	server, err := nsqd.New(options)
	if err != nil {
		return err
	}
	return untilDone(ctx, server.Main, server.Exit)
}

func nsqLookup(ctx context.Context, _ []string) error {
	options := nsqlookupd.NewOptions()
	options.BroadcastAddress = os.Getenv("POD_IP")
	server, err := nsqlookupd.New(options)
	if err != nil {
		return err
	}
	return untilDone(ctx, server.Main, server.Exit)
}

func untilDone(ctx context.Context, run func() error, exit func()) error {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		exit()
		return waitAtMost(ended, 5*time.Second)
	}
}

func waitAtMost(ended <-chan error, d time.Duration) error {
	select {
	case err := <-ended:
		return err
	case <-time.After(d):
		return nil
	}
}

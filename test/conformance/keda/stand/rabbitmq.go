package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// declared connects to a broker and declares a queue there.
func declared(url, queue string) (*amqp091.Channel, error) {
	connection, err := amqp091.Dial(url)
	if err != nil {
		return nil, err
	}
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	_, err = channel.QueueDeclare(queue, false, false, false, false, nil)
	return channel, err
}

// send publishes: broker, count, queue, and seconds to do it again after.
func send(ctx context.Context, args []string) error {
	const brokerAndCount, withQueue, withInterval = 2, 3, 4
	if len(args) < brokerAndCount {
		return errors.New("expected a broker and how many messages to send")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	queue, interval := "hello", 0
	if len(args) >= withQueue {
		queue = args[2]
	}
	if len(args) >= withInterval {
		if interval, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
	}
	channel, err := declared(args[0], queue)
	if err != nil {
		return err
	}
	for {
		for i := range count {
			message := amqp091.Publishing{ContentType: "text/plain", Body: fmt.Appendf(nil, "Hello World: %d", i)}
			if err := channel.PublishWithContext(ctx, "", queue, false, false, message); err != nil {
				return err
			}
		}
		if interval == 0 {
			return channel.Close() // which waits until all was taken
		}
		if err := pause(ctx, time.Duration(interval)*time.Second); err != nil {
			return err
		}
	}
}

// receive takes a message a second.
func receive(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("expected a broker")
	}
	queue := "hello"
	if len(args) > 1 {
		queue = args[1]
	}
	channel, err := declared(args[0], queue)
	if err != nil {
		return err
	}
	if err := channel.Qos(1, 0, false); err != nil {
		return err
	}
	messages, err := channel.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, open := <-messages:
			if !open {
				return errors.New("the broker has gone")
			}
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			if err := m.Ack(false); err != nil {
				return err
			}
		}
	}
}

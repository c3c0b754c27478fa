// Package rabbitmq reads the messages that wait in a RabbitMQ queue, by AMQP or from the management
// API.
//
// RabbitMQ cannot tell of a message without handing it out, so queues that are watched by AMQP are
// asked for their length a few times a second, all those of a virtual host on one connection. What the
// management API says is seconds old anyway; it is asked by Read only.
package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// New makes a trigger of type rabbitmq.
func New(c trigger.Config) (trigger.Source, error) {
	var p parameters
	metric, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	if p.IdentityResource != "" {
		return nil, errors.New("signing in to RabbitMQ: Azure workload identity is not built in; give a user name and password, or OAuth 2")
	}
	metric.Name = trigger.Name(c.TriggerIndex, "rabbitmq-"+url.QueryEscape(p.Queue))
	metric.Target, metric.Activation = trigger.Quantity(p.Value), p.Activation
	if p.Protocol == protocolHTTP {
		return newReported(metric, p, c)
	}
	return newCounted(metric, p, c)
}

// tls says how a server is known and we to it. Certificates are for those who enable TLS; for others
// the address alone says whether there is any.
func (p *parameters) tls() endpoint.Certificate {
	if p.TLS != "enable" {
		return endpoint.Certificate{Unsafe: p.Unsafe}
	}
	return endpoint.Certificate{CA: p.CA, Cert: p.Cert, Key: p.Key, KeyPassword: p.KeyPassword, Unsafe: p.Unsafe}
}

// counted is a trigger whose queue is counted by AMQP.
type counted struct {
	trigger.Single
	queue   string
	broker  *broker
	release func()
}

func newCounted(metric trigger.Single, p parameters, c trigger.Config) (trigger.Source, error) {
	at, err := p.address()
	if err != nil {
		return nil, err
	}
	s := &counted{Single: metric, queue: p.Queue}
	key := fmt.Sprintf("rabbitmq %s %s %#v", at.String(), p.TLS, p.tls())
	s.broker, s.release, err = endpoint.Acquire(c.Shared, key, func() (*broker, func(), error) { return newBroker(at, p, c.Environment) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *counted) Read(ctx context.Context) ([]trigger.Reading, error) {
	found, err := s.broker.questions.Do(ctx, s.queue)
	if err == nil {
		err = found.err
	}
	if err != nil {
		return nil, fmt.Errorf("inspecting RabbitMQ: %w", err)
	}
	return s.Reading(float64(found.messages)), nil
}

func (s *counted) Close() error {
	s.release()
	return nil
}

// Watch has wake called when the number of messages that are ready has changed.
func (s *counted) Watch(_ trigger.Mode, wake func()) (stop func()) {
	return s.broker.poller.Watch(s.queue, wake)
}

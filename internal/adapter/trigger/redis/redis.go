// Package redis reads how long lists, sets, sorted sets and hashes of Redis are, and what waits in its
// streams.
//
// It is told of work by what servers have for clients that cache: a connection with CLIENT TRACKING
// that has asked about a key hears once when the key is changed, whatever it holds, and takes nothing
// away. That needs no configuration and no right to write, and is bounded, since nothing more is heard
// until the key is asked about again. Where a server does not have it (before Redis 6, some proxies,
// users without the right to it), all that is watched is asked for in one go, ten times a second; so
// is what tracking does not tell of, which is entries that become pending.
package redis

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type source struct {
	trigger.Single
	question question
	server   *server
	release  func()
}

func newList(c trigger.Config, t topology) (trigger.Source, error) {
	var p listParameters
	metric, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	metric.Name = trigger.Name(c.TriggerIndex, "redis-"+p.List)
	metric.Target, metric.Activation = *resource.NewQuantity(p.Length, resource.DecimalSI), float64(p.Activation)
	s := &source{Single: metric, question: question{measure: items, key: p.List}}
	return s.open(c, p.Connection, t, p.Database)
}

func newStream(c trigger.Config, t topology) (trigger.Source, error) {
	var p streamParameters
	metric, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	asked, target := p.question()
	metric.Name = trigger.Name(c.TriggerIndex, "redis-streams-"+p.Stream)
	metric.Target, metric.Activation = *resource.NewQuantity(target, resource.DecimalSI), float64(p.Activation)
	s := &source{Single: metric, question: asked}
	return s.open(c, p.Connection, t, p.Database)
}

func (s *source) open(c trigger.Config, to connection, t topology, database int) (_ trigger.Source, err error) {
	s.server, s.release, err = endpoint.Acquire(c.Shared, to.key(t, database), func() (*server, func(), error) {
		return open(to, t, database, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	said, err := s.server.batch.Do(ctx, s.question)
	if err == nil {
		err = said.err
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s from Redis: %w", s.question.key, err)
	}
	return s.Reading(float64(said.value)), nil
}

func (s *source) Close() error {
	s.release()
	return nil
}

// Watch has wake called when the key changes.
func (s *source) Watch(mode trigger.Mode, wake func()) (stop func()) {
	return s.server.hub.Watch(interest{s.question, mode}, wake)
}

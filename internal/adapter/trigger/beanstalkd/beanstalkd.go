// Package beanstalkd reads how many jobs are in a tube of a beanstalkd, and notices new ones by asking
// for that a few times a second, which costs the server the same however many jobs there are.
package beanstalkd

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type parameters struct {
	TriggerIndex int

	Server         string  `keda:"name=server, order=triggerMetadata"`
	Tube           string  `keda:"name=tube, order=triggerMetadata"`
	Value          float64 `keda:"name=value, order=triggerMetadata"`
	Activation     float64 `keda:"name=activationValue, order=triggerMetadata, optional"`
	IncludeDelayed bool    `keda:"name=includeDelayed, order=triggerMetadata, optional"`
	// Timeout bounds connecting. Upstream's default is 30 without a unit, which came to be
	// milliseconds; a number that is given means them here, too. None, 0, is as good as the default:
	// whoever reads does not wait for longer.
	Timeout time.Duration `keda:"name=timeout, order=triggerMetadata, default=30s"`
}

// Validate checks what the tags cannot say: a tube's name stands in the midst of a command.
func (p *parameters) Validate() error {
	if p.Timeout == 0 {
		p.Timeout = 30 * time.Second
	}
	for _, r := range p.Tube {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("tube %q has a character that names of tubes cannot have", p.Tube)
		}
	}
	return nil
}

type source struct {
	trigger.Single
	interest interest
	server   *server
	release  func()
}

// New makes a trigger of type beanstalkd.
func New(c trigger.Config) (trigger.Source, error) {
	var p parameters
	single, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	s := &source{Single: single, interest: interest{p.Tube, p.IncludeDelayed}}
	s.Name = trigger.Name(c.TriggerIndex, "beanstalkd-"+url.QueryEscape(p.Tube))
	s.Target, s.Activation = trigger.Quantity(p.Value), p.Activation
	key := fmt.Sprintf("beanstalkd %s %s", p.Server, p.Timeout)
	s.server, s.release, err = endpoint.Acquire(c.Shared, key, func() (*server, func(), error) {
		made := newServer(p.Server, p.Timeout, c.Environment)
		return made, made.close, nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	tube, err := s.server.tubes.Do(ctx, s.interest.tube)
	if err == nil {
		err = tube.err
	}
	if err != nil {
		return nil, fmt.Errorf("interacting with beanstalkd at %s: %w", s.server.address, err)
	}
	return s.Reading(float64(s.interest.jobs(tube))), nil
}

// Watch implements trigger.Pusher.
func (s *source) Watch(_ trigger.Mode, wake func()) (stop func()) {
	return s.server.poller.Watch(s.interest, wake)
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}

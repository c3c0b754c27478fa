// Package nsq reads how many messages wait in an NSQ channel, and is told of messages by a channel of
// its own, which gets copies and vanishes with its connection.
package nsq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type parameters struct {
	TriggerIndex int

	Lookup              []string `keda:"name=nsqLookupdHTTPAddresses, order=triggerMetadata;resolvedEnv"`
	Topic               string   `keda:"name=topic, order=triggerMetadata;resolvedEnv"`
	Channel             string   `keda:"name=channel, order=triggerMetadata;resolvedEnv"`
	Threshold           int64    `keda:"name=depthThreshold, order=triggerMetadata;resolvedEnv, default=10"`
	ActivationThreshold int64    `keda:"name=activationDepthThreshold, order=triggerMetadata;resolvedEnv, default=0"`
	UseHTTPS            bool     `keda:"name=useHttps, order=triggerMetadata;resolvedEnv, default=false"`
	Unsafe              bool     `keda:"name=unsafeSsl, order=triggerMetadata;resolvedEnv, default=false"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if len(p.Lookup) == 0 {
		return errors.New("no nsqLookupdHTTPAddresses given")
	}
	if p.Threshold <= 0 {
		return errors.New("depthThreshold must be a positive integer")
	}
	if p.ActivationThreshold < 0 {
		return errors.New("activationDepthThreshold must be greater than or equal to 0")
	}
	return nil
}

type source struct {
	trigger.Single

	parameters parameters
	cluster    *cluster
	release    func()
}

// New makes a trigger of type nsq.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	p := &s.parameters
	s.Name = trigger.Name(c.TriggerIndex, "nsq-"+p.Topic+"-"+p.Channel)
	s.Target, s.Activation = *resource.NewQuantity(p.Threshold, resource.DecimalSI), float64(p.ActivationThreshold)
	key := fmt.Sprintf("nsq %v %v %s", p.UseHTTPS, p.Unsafe, strings.Join(p.Lookup, ","))
	s.cluster, s.release, err = endpoint.Acquire(c.Shared, key, func() (*cluster, func(), error) {
		cl := newCluster(*p, c)
		return cl, cl.close, nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	state, err := s.cluster.topics.Do(ctx, s.parameters.Topic)
	if err == nil {
		err = state.err
	}
	if err != nil {
		return nil, fmt.Errorf("reading the depth of topic %s: %w", s.parameters.Topic, err)
	}
	depth := state.depth(s.parameters.Channel)
	return s.Reading(float64(depth)), nil
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}

// Watch has wake called when messages come to the topic.
func (s *source) Watch(mode trigger.Mode, wake func()) (stop func()) {
	return s.cluster.hub.Watch(interest{channel{s.parameters.Topic, s.parameters.Channel}, mode}, wake)
}

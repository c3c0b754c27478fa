// Package nats reads the work that waits for a consumer of a NATS JetStream stream from the servers'
// monitoring, and is told of it by a subscription to the stream's subjects if the trigger says where
// clients connect, or else by one question for all streams of an account.
package nats

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type parameters struct {
	TriggerIndex int

	Account             string `keda:"name=account, order=authParams;triggerMetadata, optional"`
	AccountID           string `keda:"name=accountID, order=authParams;triggerMetadata, optional"`
	Stream              string `keda:"name=stream, order=triggerMetadata"`
	Consumer            string `keda:"name=consumer, order=triggerMetadata"`
	Threshold           int64  `keda:"name=lagThreshold, order=triggerMetadata, default=10"`
	ActivationThreshold int64  `keda:"name=activationLagThreshold, order=triggerMetadata, default=0"`
	UseHTTPS            bool   `keda:"name=useHttps, order=triggerMetadata, default=false"`
	Monitoring          string `keda:"name=natsServerMonitoringEndpoint, order=authParams;triggerMetadata"`

	Login login `keda:"optional"`
}

// login is ebb's own: where and as whom to subscribe.
type login struct {
	URL         string `keda:"name=natsServerURL, order=authParams;triggerMetadata, optional"`
	User        string `keda:"name=natsUser, order=authParams;triggerMetadata, optional"`
	Password    string `keda:"name=natsPassword, order=authParams;resolvedEnv, optional"`
	Token       string `keda:"name=natsToken, order=authParams;resolvedEnv, optional"`
	Credentials string `keda:"name=natsCredentials, order=authParams;resolvedEnv, optional"`
	CA          string `keda:"name=natsCA, order=authParams, optional"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if p.Account == "" && p.AccountID == "" {
		return errors.New("no account name or id given")
	}
	if p.AccountID == "" {
		p.AccountID = p.Account
	}
	return nil
}

type source struct {
	trigger.Single

	parameters parameters
	account    *account
	subscriber *subscriber // nil without natsServerURL
	release    []func()
}

// New makes a trigger of type nats-jetstream.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	p := &s.parameters
	s.Name = trigger.Name(c.TriggerIndex, "nats-jetstream-"+p.Stream)
	s.Target, s.Activation = *resource.NewQuantity(p.Threshold, resource.DecimalSI), float64(p.ActivationThreshold)
	at := place{https: p.UseHTTPS, host: p.Monitoring, name: p.Account, id: p.AccountID}
	var release func()
	s.account, release, err = endpoint.Acquire(c.Shared, fmt.Sprintf("nats-jetstream %+v", at), func() (*account, func(), error) {
		a := newAccount(at, c)
		return a, a.close, nil
	})
	if err != nil {
		return nil, err
	}
	s.release = append(s.release, release)
	if p.Login.URL == "" {
		return s, nil
	}
	s.subscriber, release, err = endpoint.Acquire(c.Shared, fmt.Sprintf("nats %q", p.Login), func() (*subscriber, func(), error) {
		return newSubscriber(p.Login, c.Environment)
	})
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	s.release = append(s.release, release)
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	lag, err := s.account.lag(ctx, consumer{s.parameters.Stream, s.parameters.Consumer})
	if err != nil {
		return nil, fmt.Errorf("reading NATS JetStream: %w", err)
	}
	return s.Reading(float64(lag)), nil
}

// Close implements trigger.Source.
func (s *source) Close() error {
	for _, release := range s.release {
		release()
	}
	return nil
}

// Watch has wake called when a message comes to the stream, or when the consumer's lag has changed.
func (s *source) Watch(mode trigger.Mode, wake func()) (stop func()) {
	if s.subscriber == nil {
		return s.account.poller.Watch(consumer{s.parameters.Stream, s.parameters.Consumer}, wake)
	}
	return s.subscriber.hub.Watch(interest{s.account, s.parameters.Stream, s.parameters.Consumer, mode}, wake)
}

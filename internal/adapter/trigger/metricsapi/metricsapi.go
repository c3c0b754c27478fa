// Package metricsapi reads a number out of what any HTTP endpoint answers, or out of what each of a
// Service's endpoints does.
package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type parameters struct {
	TriggerIndex int

	Target      float64       `keda:"name=targetValue, order=triggerMetadata, optional"`
	Activation  float64       `keda:"name=activationTargetValue, order=triggerMetadata, default=0"`
	URL         string        `keda:"name=url, order=triggerMetadata"`
	Format      string        `keda:"name=format, order=triggerMetadata, default=json, enum=prometheus;json;xml;yaml"`
	Location    string        `keda:"name=valueLocation, order=triggerMetadata"`
	Unsafe      bool          `keda:"name=unsafeSsl, order=triggerMetadata, default=false"`
	Aggregate   bool          `keda:"name=aggregateFromKubeServiceEndpoints, order=triggerMetadata, default=false"`
	Aggregation string        `keda:"name=aggregationType, order=triggerMetadata, default=average, enum=average;sum;max;min"`
	Timeout     time.Duration `keda:"name=timeout, order=triggerMetadata, optional"`
	Auth        endpoint.Auth `keda:"optional"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	return p.Auth.Allow(endpoint.APIKey, endpoint.Basic, endpoint.Mutual, endpoint.Bearer)
}

type source struct {
	trigger.Single
	parameters parameters
	extract    extract
	client     *endpoint.HTTP
	objects    trigger.Objects
}

// New makes a trigger of type metrics-api.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{objects: c.Objects}
	p := &s.parameters
	var err error
	if s.Single, err = c.Parameters(p); err != nil {
		return nil, err
	}
	if p.Target == 0 && !c.AsMetricSource {
		return nil, errors.New("reading parameters of metrics-api: no targetValue given in metadata")
	}
	s.Name = trigger.Name(c.TriggerIndex, "metric-api-"+p.Location)
	s.Target, s.Activation = trigger.Quantity(p.Target), p.Activation
	s.extract = formats[p.Format]
	config := c.HTTP(p.Timeout)
	config.Certificate.Unsafe = p.Unsafe
	if p.Auth.Has(endpoint.Mutual) {
		config.Certificate = p.Auth.Certificate(p.Unsafe)
	}
	if s.client, err = endpoint.AcquireHTTP(c.Shared, config); err != nil {
		return nil, err
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	value, err := s.value(ctx)
	if err != nil {
		return nil, fmt.Errorf("requesting metrics endpoint: %w", err)
	}
	return s.Reading(value), nil
}

func (s *source) value(ctx context.Context) (float64, error) {
	if s.parameters.Aggregate {
		return s.aggregate(ctx)
	}
	return s.ask(ctx, s.parameters.URL)
}

// ask reads the number from one address.
func (s *source) ask(ctx context.Context, address string) (float64, error) {
	request, err := endpoint.Get(ctx, address)
	if err != nil {
		return 0, fmt.Errorf("reading url: %w", err)
	}
	s.parameters.Auth.Sign(request)
	s.parameters.Auth.SignKey(request)
	status, body, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	if status != http.StatusOK {
		return 0, fmt.Errorf("%s: api returned %d", request.URL.Path, status)
	}
	return s.extract(body, s.parameters.Location)
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.client.Close()
	return nil
}

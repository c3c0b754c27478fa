// Package graphite asks a Graphite for the newest point of a series.
package graphite

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

type parameters struct {
	TriggerIndex int

	Server     string        `keda:"name=serverAddress, order=triggerMetadata"`
	Query      string        `keda:"name=query, order=triggerMetadata"`
	Threshold  float64       `keda:"name=threshold, order=triggerMetadata, default=100"`
	Activation float64       `keda:"name=activationThreshold, order=triggerMetadata, default=0"`
	QueryTime  string        `keda:"name=queryTime, order=triggerMetadata"`
	Auth       endpoint.Auth `keda:"optional"`
}

// Validate checks what the tags cannot say. A user without a mode signs in, as it was before there
// were modes.
func (p *parameters) Validate() error {
	if len(p.Auth.Modes) == 0 && p.Auth.Username != "" {
		p.Auth.Modes = []endpoint.Mode{endpoint.Basic}
	}
	return p.Auth.Allow(endpoint.Basic)
}

type source struct {
	trigger.Single
	parameters parameters
	client     *endpoint.HTTP
}

// New makes a trigger of type graphite.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	p := &s.parameters
	var err error
	if s.Single, err = c.Parameters(p); err != nil {
		return nil, err
	}
	s.Name = trigger.Name(c.TriggerIndex, "graphite")
	s.Target, s.Activation = trigger.Quantity(p.Threshold), p.Activation
	if s.client, err = endpoint.AcquireHTTP(c.Shared, c.HTTP(0)); err != nil {
		return nil, err
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	value, err := s.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("querying Graphite: %w", err)
	}
	return s.Reading(value), nil
}

func (s *source) ask(ctx context.Context) (float64, error) {
	p := &s.parameters
	// As upstream has it, the time is part of the URL as it stands: it may be escaped already.
	request, err := endpoint.Get(ctx, p.Server+"/render?from="+p.QueryTime+"&target="+url.QueryEscape(p.Query)+"&format=json")
	if err != nil {
		return 0, fmt.Errorf("reading serverAddress: %w", err)
	}
	p.Auth.Sign(request)
	status, body, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	var series []struct {
		Points [][]*float64 `json:"datapoints"`
	}
	if err := json.Unmarshal(body, &series); err != nil {
		return 0, fmt.Errorf("reading the answer, which has status %d: %w", status, err)
	}
	switch {
	case len(series) == 0:
		return 0, nil
	case len(series) > 1:
		return 0, fmt.Errorf("graphite query %s returned multiple series", p.Query)
	}
	points := series[0].Points
	if len(points) == 0 {
		return 0, nil
	}
	for _, point := range slices.Backward(points) {
		if len(point) > 0 && point[0] != nil {
			return *point[0], nil
		}
	}
	return 0, fmt.Errorf("no valid non-null response in query %s, try increasing your queryTime or check your query", p.Query)
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.client.Close()
	return nil
}

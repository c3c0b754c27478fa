// Package prometheus asks a Prometheus, or what speaks like one, a query that has one number as its
// answer.
package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
	"ebb.dev/ebb/internal/platform/telemetry/keda"
)

type parameters struct {
	TriggerIndex int

	Auth       endpoint.Auth     `keda:"optional"`
	Server     string            `keda:"name=serverAddress, order=triggerMetadata"`
	Query      string            `keda:"name=query, order=triggerMetadata"`
	Extra      map[string]string `keda:"name=queryParameters, order=triggerMetadata, optional"`
	Threshold  float64           `keda:"name=threshold, order=triggerMetadata"`
	Activation float64           `keda:"name=activationThreshold, order=triggerMetadata, optional"`
	Namespace  string            `keda:"name=namespace, order=triggerMetadata, optional"`
	Headers    map[string]string `keda:"name=customHeaders, order=triggerMetadata, optional"`
	IgnoreNull bool              `keda:"name=ignoreNullValues, order=triggerMetadata, default=true"`
	Unsafe     bool              `keda:"name=unsafeSsl, order=triggerMetadata, optional"`
	AWSRegion  string            `keda:"name=awsRegion, order=triggerMetadata;authParams, optional"`
	Timeout    time.Duration     `keda:"name=timeout, order=triggerMetadata, optional"`
	Owner      string            `keda:"name=identityOwner, order=triggerMetadata, optional"`
}

type source struct {
	trigger.Single
	parameters parameters
	client     *endpoint.HTTP
	asker      *keda.Asker
}

// New makes a trigger of type prometheus.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{asker: c.Asker()}
	p := &s.parameters
	var err error
	if s.Single, err = c.Parameters(p); err != nil {
		return nil, err
	}
	s.Name = trigger.Name(c.TriggerIndex, "prometheus")
	s.Target, s.Activation = trigger.Quantity(p.Threshold), p.Activation
	config := c.HTTP(p.Timeout)
	if err := identify(c, p, &config); err != nil {
		return nil, fmt.Errorf("signing in to Prometheus: %w", err)
	}
	config.Certificate.Unsafe = p.Unsafe
	if len(p.Auth.Modes) > 0 && (p.Auth.CA != "" || p.Auth.Has(endpoint.Mutual)) {
		// As upstream has it, a server is checked whatever unsafeSsl says once there is something to
		// check it by.
		config.Certificate = p.Auth.Certificate(false)
	}
	if p.Auth.Has(endpoint.OAuth) {
		config.OAuth(&p.Auth)
		if p.Auth.ClientSecret == "" && !p.Auth.Has(endpoint.Mutual) {
			c.Log.Warn("OAuth is configured without clientSecret and without mTLS (RFC 8705). "+
				"Add a clientSecret or enable mTLS to ensure secure authentication.",
				"namespace", c.ScalableObjectNamespace, "name", c.ScalableObjectName)
		}
	}
	if s.client, err = endpoint.AcquireHTTP(c.Shared, config); err != nil {
		return nil, err
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	value, err := s.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("querying Prometheus: %w", err)
	}
	return s.Reading(value), nil
}

func (s *source) ask(ctx context.Context) (float64, error) {
	request, err := endpoint.Get(ctx, s.address())
	if err != nil {
		return 0, fmt.Errorf("reading serverAddress: %w", err)
	}
	for name, value := range s.parameters.Headers {
		request.Header.Add(name, value)
	}
	s.parameters.Auth.Sign(request)
	status, body, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	if status < 200 || status > 299 {
		return 0, fmt.Errorf("prometheus query api returned error. status: %d", status)
	}
	return s.value(body)
}

func (s *source) address() string {
	p := &s.parameters
	query := url.Values{"query": {p.Query}, "time": {time.Now().UTC().Format(time.RFC3339)}}
	if p.Namespace != "" {
		query.Set("namespace", p.Namespace)
	}
	for name, value := range p.Extra {
		query.Add(name, value)
	}
	return p.Server + "/api/v1/query?" + query.Encode()
}

// value reads the number in an answer. One that has none counts as 0 unless the trigger wants to know.
func (s *source) value(body []byte) (float64, error) {
	var answer struct {
		Data struct {
			Result []struct {
				Value []any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("reading the answer: %w", err)
	}
	result := answer.Data.Result
	switch {
	case len(result) == 0:
		return s.empty("prometheus metrics 'prometheus' target may be lost, the result is empty")
	case len(result) > 1:
		return 0, fmt.Errorf("prometheus query %s returned multiple elements", s.parameters.Query)
	case len(result[0].Value) == 0:
		return s.empty("prometheus metrics 'prometheus' target may be lost, the value list is empty")
	case len(result[0].Value) < 2:
		return 0, fmt.Errorf("prometheus query %s didn't return enough values", s.parameters.Query)
	}
	switch v := result[0].Value[1].(type) {
	case nil:
		return -1, nil // upstream's, which is as good as none
	case string:
		number, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the value %q: it is not a number", v)
		}
		if math.IsInf(number, 0) || math.IsNaN(number) {
			return s.none(fmt.Sprintf("prometheus query returns %f", number))
		}
		return number, nil
	default:
		return 0, fmt.Errorf("reading the value %v: it is not a string", v)
	}
}

// empty is none for an answer that has nothing at all in it.
func (s *source) empty(what string) (float64, error) {
	s.asker.Empty(s.parameters.IgnoreNull)
	return s.none(what)
}

func (s *source) none(what string) (float64, error) {
	if s.parameters.IgnoreNull {
		return 0, nil
	}
	return 0, errors.New(what)
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.client.Close()
	return nil
}

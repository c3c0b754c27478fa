// Package kubernetes reads how much work waits from a ConfigMap or Secret in which somebody keeps it.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ebb.dev/ebb/internal/adapter/trigger"
)

const (
	configMap = "ConfigMap"
	secret    = "Secret"
)

type parameters struct {
	TriggerIndex int

	Kind             string  `keda:"name=resourceKind,order=triggerMetadata,enum=ConfigMap;Secret"`
	Name             string  `keda:"name=resourceName,order=triggerMetadata"`
	Key              string  `keda:"name=key,order=triggerMetadata"`
	Format           string  `keda:"name=format,order=triggerMetadata,default=number,enum=number;json;yaml"`
	Location         string  `keda:"name=valueLocation,order=triggerMetadata,optional"`
	Type             string  `keda:"name=valueType,order=triggerMetadata,default=float64,enum=float64;int64;quantity"`
	Target           float64 `keda:"name=targetValue,order=triggerMetadata"`
	ActivationTarget float64 `keda:"name=activationTargetValue,order=triggerMetadata,default=0"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if p.Format == number && p.Location != "" {
		return errors.New("valueLocation is only supported with json or yaml format")
	}
	if p.Format != number && p.Location == "" {
		return fmt.Errorf("valueLocation is required for %s format", p.Format)
	}
	return nil
}

type source struct {
	trigger.Single
	parameters parameters
	namespace  string
	objects    trigger.Objects
}

// New makes a trigger of type kubernetes-resource.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{namespace: c.ScalableObjectNamespace, objects: c.Objects}
	p := &s.parameters
	var err error
	if s.Single, err = c.Parameters(p); err != nil {
		return nil, err
	}
	if p.Target <= 0 && !c.AsMetricSource {
		return nil, errors.New("targetValue must be a float greater than 0")
	}
	if s.objects == nil {
		return nil, fmt.Errorf("reading a %s: there is no cluster to read it from", p.Kind)
	}
	s.Single.Name = trigger.Name(c.TriggerIndex, strings.ToLower(p.Kind)+"-"+p.Name+"-"+p.Key)
	s.Single.Target, s.Activation = trigger.Quantity(p.Target), p.ActivationTarget
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	p := &s.parameters
	text, found, err := s.text(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s %s/%s: %w", p.Kind, s.namespace, p.Name, err)
	case !found:
		return nil, fmt.Errorf("key %s not found in %s %s/%s", p.Key, p.Kind, s.namespace, p.Name)
	}
	value, err := p.value(text)
	if err != nil {
		if p.Kind == secret { // the cause may quote it
			err = fmt.Errorf("it holds no %s where there should be one", p.Type)
		}
		return nil, fmt.Errorf("reading %s of %s %s/%s: %w", p.Key, p.Kind, s.namespace, p.Name, err)
	}
	return s.Reading(value), nil
}

// text returns what stands under the key.
func (s *source) text(ctx context.Context) (text string, found bool, err error) {
	p := &s.parameters
	if p.Kind == configMap {
		object, err := s.objects.ConfigMap(ctx, s.namespace, p.Name)
		if err != nil {
			return "", false, err
		}
		text, found = object.Data[p.Key]
		return text, found, nil
	}
	object, err := s.objects.Secret(ctx, s.namespace, p.Name)
	if err != nil {
		return "", false, err
	}
	data, found := object.Data[p.Key]
	return string(data), found, nil
}

// Watch implements trigger.Pusher.
func (s *source) Watch(_ trigger.Mode, wake func()) (stop func()) {
	if s.parameters.Kind == configMap {
		return s.objects.WatchConfigMap(s.namespace, s.parameters.Name, wake)
	}
	return s.objects.WatchSecret(s.namespace, s.parameters.Name, wake)
}

// Close implements trigger.Source.
func (s *source) Close() error { return nil }

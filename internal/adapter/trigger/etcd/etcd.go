// Package etcd reads how much work waits from a key of etcd in which somebody keeps it, and watches
// the key.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// What parameter tls can be.
const (
	enable  = "enable"
	disable = "disable"
)

type parameters struct {
	TriggerIndex int

	Endpoints  []string `keda:"name=endpoints, order=triggerMetadata"`
	Key        string   `keda:"name=watchKey, order=triggerMetadata"`
	Value      float64  `keda:"name=value, order=triggerMetadata"`
	Activation float64  `keda:"name=activationValue, order=triggerMetadata, default=0"`
	// Interval is how often the server tells that a watch goes on, in seconds.
	Interval int `keda:"name=watchProgressNotifyInterval, order=triggerMetadata, default=600"`

	Username string `keda:"name=username, order=authParams;resolvedEnv, optional"`
	Password string `keda:"name=password, order=authParams;resolvedEnv, optional"`

	TLS         string `keda:"name=tls, order=authParams, default=disable"`
	ClientCert  string `keda:"name=cert, order=authParams, optional"`
	ClientKey   string `keda:"name=key, order=authParams, optional"`
	KeyPassword string `keda:"name=keyPassword, order=authParams, optional"`
	CA          string `keda:"name=ca, order=authParams, optional"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if p.Interval <= 0 {
		return errors.New("watchProgressNotifyInterval must be greater than 0")
	}
	switch p.TLS {
	case disable:
	case enable:
		if err := together("cert", p.ClientCert, "key", p.ClientKey); err != nil {
			return err
		}
	default:
		return fmt.Errorf("incorrect value for TLS given: %s", p.TLS)
	}
	return together("username", p.Username, "password", p.Password)
}

// together refuses one of two parameters without the other.
func together(one, first, other, second string) error {
	if first == "" && second != "" {
		return fmt.Errorf("%s must be provided with %s", one, other)
	}
	if second == "" && first != "" {
		return fmt.Errorf("%s must be provided with %s", other, one)
	}
	return nil
}

// shared tells endpoints and credentials apart.
func (p *parameters) shared() string {
	return fmt.Sprintf("etcd %q", []string{
		strings.Join(p.Endpoints, ","), p.Username, p.Password, p.TLS, p.ClientCert, p.ClientKey, p.KeyPassword, p.CA,
	})
}

type source struct {
	trigger.Single
	key     string
	silence time.Duration
	cluster *cluster
	release func()
}

// New makes a trigger of type etcd.
func New(c trigger.Config) (trigger.Source, error) {
	var p parameters
	single, err := c.Parameters(&p)
	if err != nil {
		return nil, err
	}
	single.Name = trigger.Name(c.TriggerIndex, "etcd-"+p.Key)
	single.Target, single.Activation = trigger.Quantity(p.Value), p.Activation
	s := &source{Single: single, key: p.Key, silence: 2 * time.Duration(p.Interval) * time.Second}
	s.cluster, s.release, err = endpoint.Acquire(c.Shared, p.shared(), func() (*cluster, func(), error) {
		return open(&p, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	text, found, err := s.cluster.get(ctx, s.key)
	if err != nil {
		return nil, fmt.Errorf("reading %s of etcd: %w", s.key, err)
	}
	if !found {
		return nil, fmt.Errorf("watchKey %s doesn't exist", s.key)
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("reading %s of etcd: %w", s.key, err)
	}
	return s.Reading(value), nil
}

// Watch implements trigger.Pusher.
func (s *source) Watch(mode trigger.Mode, wake func()) (stop func()) {
	return s.cluster.hub.Watch(interest{key: s.key, silence: s.silence, mode: mode}, wake)
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}

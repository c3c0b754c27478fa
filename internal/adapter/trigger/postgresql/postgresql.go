// Package postgresql reads work from a PostgreSQL database by a query, and is told of it by
// notifications if the trigger names a channel.
package postgresql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/kedacore/keda/v2/apis/keda/v1alpha1"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

// longestChannel is how long PostgreSQL lets an identifier be.
const longestChannel = 63

type parameters struct {
	TriggerIndex int

	Query            string  `keda:"name=query, order=triggerMetadata"`
	Target           float64 `keda:"name=targetQueryValue, order=triggerMetadata, optional"`
	ActivationTarget float64 `keda:"name=activationTargetQueryValue, order=triggerMetadata, optional"`

	Connection string `keda:"name=connection, order=authParams;resolvedEnv, optional"`
	Host       string `keda:"name=host, order=authParams;triggerMetadata, optional"`
	Port       string `keda:"name=port, order=authParams;triggerMetadata, optional"`
	UserName   string `keda:"name=userName, order=authParams;triggerMetadata, optional"`
	Password   string `keda:"name=password, order=authParams;resolvedEnv, optional"`
	DBName     string `keda:"name=dbName, order=authParams;triggerMetadata, optional"`
	SSLMode    string `keda:"name=sslmode, order=authParams;triggerMetadata, optional"`

	// NotifyChannel is ebb's own: LISTEN on it and query when something was notified there.
	NotifyChannel string `keda:"name=notifyChannel, order=triggerMetadata, optional"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if len(p.NotifyChannel) > longestChannel {
		return fmt.Errorf("notifyChannel is longer than %d bytes", longestChannel)
	}
	if p.Connection != "" {
		return nil
	}
	for _, part := range []struct{ name, value string }{
		{"host", p.Host}, {"port", p.Port}, {"userName", p.UserName}, {"dbName", p.DBName}, {"sslmode", p.SSLMode},
	} {
		if part.value == "" {
			return fmt.Errorf("no %s given", part.name)
		}
	}
	return nil
}

// connection returns the connection string, put together from its parts if it is not given.
func (p *parameters) connection() string {
	if p.Connection != "" {
		return p.Connection
	}
	var b strings.Builder
	for _, part := range [][2]string{
		{"host", p.Host},
		{"port", p.Port},
		{"user", p.UserName},
		{"dbname", p.DBName},
		{"sslmode", p.SSLMode},
		{"password", p.Password},
	} {
		fmt.Fprintf(&b, "%s=%s ", part[0], quote(part[1]))
	}
	return strings.TrimSpace(b.String())
}

var escape = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

func quote(value string) string {
	if value != "" && !strings.ContainsAny(value, `'\`) && strings.IndexFunc(value, unicode.IsSpace) < 0 {
		return value
	}
	return "'" + escape.Replace(value) + "'"
}

type source struct {
	trigger.Single

	parameters parameters
	database   *database
	release    func()
}

// pusher is a source with a channel to listen on.
type pusher struct{ *source }

// New makes a trigger of type postgresql.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	p := &s.parameters
	if p.Target == 0 && !c.AsMetricSource {
		return nil, errors.New("reading parameters of postgresql: no targetQueryValue given")
	}
	switch c.PodIdentity.Provider {
	case "", v1alpha1.PodIdentityProviderNone:
	default:
		return nil, fmt.Errorf("signing in to PostgreSQL: pod identity %q is not built in; give a password, by secretTargetRef or an external secret store", c.PodIdentity.Provider)
	}
	s.Name = trigger.Name(c.TriggerIndex, "postgresql")
	s.Target, s.Activation = trigger.Quantity(p.Target), p.ActivationTarget
	connection := p.connection()
	s.database, s.release, err = endpoint.Acquire(c.Shared, "postgresql "+connection, func() (*database, func(), error) {
		return open(connection, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	if p.NotifyChannel != "" {
		return pusher{s}, nil
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	value, err := s.database.query(ctx, s.parameters.Query)
	if err != nil {
		return nil, fmt.Errorf("querying PostgreSQL: %w", err)
	}
	return s.Reading(value), nil
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}

// Watch has wake called after notifications on the trigger's channel.
func (p pusher) Watch(_ trigger.Mode, wake func()) (stop func()) {
	return p.database.notices.Watch(p.parameters.NotifyChannel, wake)
}

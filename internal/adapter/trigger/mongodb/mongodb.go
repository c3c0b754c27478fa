// Package mongodb counts the documents of a MongoDB collection that match a query, and is told of
// changes by a change stream where the server has them.
package mongodb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	enable = "enable"
	srv    = "mongodb+srv"
)

type parameters struct {
	TriggerIndex int

	Connection       string  `keda:"name=connectionString, order=authParams;triggerMetadata;resolvedEnv, optional"`
	Scheme           string  `keda:"name=scheme, order=authParams;triggerMetadata, default=mongodb"`
	Host             string  `keda:"name=host, order=authParams;triggerMetadata, optional"`
	Port             string  `keda:"name=port, order=authParams;triggerMetadata, optional"`
	Username         string  `keda:"name=username, order=authParams;triggerMetadata, optional"`
	Password         string  `keda:"name=password, order=authParams;triggerMetadata;resolvedEnv, optional"`
	DBName           string  `keda:"name=dbName, order=authParams;triggerMetadata"`
	Collection       string  `keda:"name=collection, order=triggerMetadata"`
	Query            string  `keda:"name=query, order=triggerMetadata"`
	Target           float64 `keda:"name=queryValue, order=triggerMetadata"`
	ActivationTarget float64 `keda:"name=activationQueryValue, order=triggerMetadata, default=0"`

	TLS         string `keda:"name=tls, order=authParams, enum=enable;disable, default=disable"`
	Cert        string `keda:"name=cert, order=authParams, optional"`
	Key         string `keda:"name=key, order=authParams, optional"`
	KeyPassword string `keda:"name=keyPassword, order=authParams, optional"`
	CA          string `keda:"name=ca, order=authParams, optional"`

	// ChangeStream is ebb's own: watch the collection and count when it was written to.
	ChangeStream bool `keda:"name=changeStream, order=triggerMetadata, default=false"`
}

// Validate checks what the tags cannot say.
func (p *parameters) Validate() error {
	if p.Connection == "" {
		for _, part := range []struct {
			name, value string
			needed      bool
		}{
			{"host", p.Host, true}, {"port", p.Port, p.Scheme != srv}, {"username", p.Username, true}, {"password", p.Password, true},
		} {
			if part.needed && part.value == "" {
				return fmt.Errorf("no %s given", part.name)
			}
		}
	}
	if p.TLS == enable {
		if p.Cert == "" && p.Key == "" && p.CA == "" {
			return errors.New("at least one of cert, key, or ca must be provided when TLS is enabled")
		}
		if (p.Cert == "") != (p.Key == "") {
			return errors.New("both cert and key must be provided when using client certificates")
		}
	}
	return nil
}

// connection returns the connection string, put together from its parts if it is not given.
func (p *parameters) connection() string {
	if p.Connection != "" {
		return p.Connection
	}
	host := p.Host
	if p.Scheme != srv {
		host = net.JoinHostPort(p.Host, p.Port)
	}
	at := url.URL{Scheme: p.Scheme, User: url.UserPassword(p.Username, p.Password), Host: host, Path: p.DBName}
	return at.String()
}

type source struct {
	trigger.Single

	parameters parameters
	filter     bson.D
	server     *server
	release    func()
}

// pusher is a source that watches its collection.
type pusher struct{ *source }

// New makes a trigger of type mongodb.
func New(c trigger.Config) (trigger.Source, error) {
	s := &source{}
	var err error
	if s.Single, err = c.Parameters(&s.parameters); err != nil {
		return nil, err
	}
	p := &s.parameters
	s.Name = trigger.Name(c.TriggerIndex, "mongodb-"+p.Collection)
	s.Target, s.Activation = trigger.Quantity(p.Target), p.ActivationTarget
	if err := bson.UnmarshalExtJSON([]byte(p.Query), true, &s.filter); err != nil {
		return nil, fmt.Errorf("reading parameters of mongodb: parsing query: %w", err)
	}
	if len(s.filter) == 0 {
		return nil, errors.New("reading parameters of mongodb: parsing query: empty bson document")
	}
	l := login{connection: p.connection(), tls: p.TLS == enable, certificate: endpoint.Certificate{
		CA: p.CA, Cert: p.Cert, Key: p.Key, KeyPassword: p.KeyPassword,
	}}
	s.server, s.release, err = endpoint.Acquire(c.Shared, fmt.Sprintf("mongodb %q", []any{l}), func() (*server, func(), error) {
		return connect(l, c.Environment)
	})
	if err != nil {
		return nil, err
	}
	if p.ChangeStream {
		return pusher{s}, nil
	}
	return s, nil
}

// Read implements trigger.Source.
func (s *source) Read(ctx context.Context) ([]trigger.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := s.server.open()
	if err != nil {
		return nil, err
	}
	count, err := client.Database(s.parameters.DBName).Collection(s.parameters.Collection).CountDocuments(ctx, s.filter)
	if err != nil {
		return nil, fmt.Errorf("counting documents of MongoDB: %w", err)
	}
	return s.Reading(float64(count)), nil
}

// Close implements trigger.Source.
func (s *source) Close() error {
	s.release()
	return nil
}

// Watch has wake called after the collection was written to.
func (p pusher) Watch(_ trigger.Mode, wake func()) (stop func()) {
	return p.server.changes.Watch(collection{p.parameters.DBName, p.parameters.Collection}, wake)
}

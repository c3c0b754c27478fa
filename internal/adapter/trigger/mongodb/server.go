package mongodb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// patience is how long a question may take.
	patience = 10 * time.Second
	// most is how many connections there may be to one server of those that are named; change streams
	// have one each.
	most = 2
	// hold is how long a server holds a question for changes when there are none.
	hold = 10 * time.Second
	// pause is how long a collection that cannot be watched is left alone.
	pause = time.Minute
)

// errConnection says nothing of its cause, which may quote a password.
var errConnection = errors.New("parsing the connection to MongoDB: it is not one that the driver knows, or its servers cannot be looked up")

// A login is where the servers are and as whom to ask them.
type login struct {
	connection  string
	tls         bool
	certificate endpoint.Certificate
}

// A collection is one of a database.
type collection struct{ database, name string }

// A server is what triggers of one login share.
type server struct {
	login   login
	env     trigger.Environment
	changes *endpoint.Hub[collection]

	mu     sync.Mutex // guards client
	client *mongo.Client
}

func (l login) options(env trigger.Environment) (*options.ClientOptions, error) {
	o := options.Client().ApplyURI(l.connection)
	if err := o.Validate(); err != nil {
		return nil, errConnection
	}
	o.SetDialer(dialer(env.Dial)).SetMaxConnIdleTime(2 * time.Minute)
	if o.AppName == nil {
		o.SetAppName("ebb")
	}
	switch {
	case l.tls:
		config, err := l.certificate.TLS(env.TLS)
		if err != nil {
			return nil, fmt.Errorf("signing in to MongoDB: %w", err)
		}
		o.SetTLSConfig(config)
	case o.TLSConfig != nil && env.TLS != nil:
		config := o.TLSConfig.Clone()
		config.MinVersion = max(config.MinVersion, env.TLS.MinVersion, tls.VersionTLS12)
		if config.RootCAs == nil {
			config.RootCAs = env.TLS.RootCAs
		}
		o.SetTLSConfig(config)
	}
	return o, nil
}

func connect(l login, env trigger.Environment) (*server, func(), error) {
	s := &server{login: l, env: env}
	if !strings.HasPrefix(l.connection, srv+":") {
		if _, err := s.open(); err != nil {
			return nil, nil, err
		}
	}
	s.changes = endpoint.NewHub(env.Shared, "MongoDB", env.Log, s.session)
	return s, func() {
		s.changes.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.client != nil {
			ctx, over := env.Shared.Lifetime()
			defer over()
			farewell(ctx, s.client.Disconnect)
		}
	}, nil
}

// open returns the client. It is made when it is first needed, as the servers of some connection
// strings are looked up while these are parsed.
func (s *server) open() (*mongo.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	o, err := s.login.options(s.env)
	if err != nil {
		return nil, err
	}
	client, err := mongo.Connect(o.SetMaxPoolSize(most))
	if err != nil {
		return nil, errConnection
	}
	s.client = client
	return client, nil
}

// farewell ends something with a server, which may be gone.
func farewell(ctx context.Context, end func(context.Context) error) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = end(limit)
}

// session watches collections by a client of its own, as each change stream holds a connection.
func (s *server) session(ctx context.Context, h *endpoint.Hub[collection]) error {
	o, err := s.login.options(s.env)
	if err != nil {
		return err
	}
	client, err := mongo.Connect(o.SetMaxPoolSize(0))
	if err != nil {
		return errConnection
	}
	defer farewell(ctx, client.Disconnect)
	return h.Each(ctx, func(ctx context.Context, key collection) {
		for ctx.Err() == nil {
			err := follow(ctx, client, h, key)
			if ctx.Err() != nil {
				return
			}
			s.env.Log.Debug("watching a collection of MongoDB: it is polled meanwhile", "collection", key.name, "error", err)
			wait := s.env.Shared.Rest(time.Second)
			// What breaks on the way is one, too, and so is what passes.
			if said, is := errors.AsType[mongo.CommandError](err); is && !mongo.IsNetworkError(err) && !mongo.IsTimeout(err) && !said.HasErrorLabel("ResumableChangeStreamError") {
				wait = pause // it is no replica set, or the user may not
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	})
}

// follow wakes a collection when it was written to, until its change stream ends.
func follow(ctx context.Context, client *mongo.Client, h *endpoint.Hub[collection], key collection) error {
	// Of each change only its kind is sent.
	pipeline := mongo.Pipeline{{{Key: "$project", Value: bson.D{{Key: "operationType", Value: 1}}}}}
	stream, err := client.Database(key.database).Collection(key.name).Watch(ctx, pipeline,
		options.ChangeStream().SetMaxAwaitTime(hold).SetBatchSize(100))
	if err != nil {
		return err
	}
	defer farewell(ctx, stream.Close)
	h.Wake(key) // what came before went unseen
	for stream.Next(ctx) {
		h.Wake(key)
	}
	return stream.Err()
}

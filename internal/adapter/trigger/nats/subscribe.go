package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// patience is how long connecting may take.
	patience = 5 * time.Second
	// again and jitter are the pause between attempts to connect once more.
	again  = 250 * time.Millisecond
	jitter = 100 * time.Millisecond
	// soon and later are how long a stream is not listened to after a message: each message that is
	// heard is a copy sent by the server.
	soon  = 200 * time.Millisecond
	later = time.Second
)

var errNoSubjects = errors.New("the stream takes in no subject that can be subscribed to")

// An interest is what is watched: a stream, for one of its consumers.
type interest struct {
	account          *account
	stream, consumer string
	mode             trigger.Mode
}

// A subscriber is a client of NATS that triggers share.
type subscriber struct {
	options nats.Options
	env     trigger.Environment
	hub     *endpoint.Hub[interest]
}

// dialer lets the client dial as the process does, while a session lasts. The client has one connection
// at a time, but leaves some open that break while it greets the server.
type dialer struct {
	session context.Context
	dial    endpoint.Dial

	mu   sync.Mutex // guards last
	last net.Conn
}

// Dial opens a connection in the place of the one before.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	limit, cancel := context.WithTimeout(d.session, patience)
	defer cancel()
	conn, err := d.dial(limit, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last != nil {
		_ = d.last.Close()
	}
	d.last = conn
	return conn, nil
}

func newSubscriber(l login, env trigger.Environment) (*subscriber, func(), error) {
	options := nats.GetDefaultOptions()
	options.Url, options.Name = l.URL, "ebb"
	options.SkipHostLookup = true
	options.Timeout, options.MaxReconnect, options.ReconnectWait = patience, -1, env.Shared.Rest(again)
	options.ReconnectJitter = env.Shared.Rest(jitter) // nobody else does so at the same time
	options.ReconnectJitterTLS = options.ReconnectJitter
	options.PingInterval, options.MaxPingsOut = 10*time.Second, 2
	options.User, options.Password, options.Token = l.User, l.Password, l.Token
	if l.Credentials != "" {
		if err := nats.UserCredentialBytes([]byte(l.Credentials))(&options); err != nil {
			return nil, nil, errors.New("reading natsCredentials: they are not what nsc makes")
		}
	}
	options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if env.TLS != nil {
		options.TLSConfig = env.TLS.Clone()
	}
	if l.CA != "" {
		roots := x509.NewCertPool()
		if options.TLSConfig.RootCAs != nil {
			roots = options.TLSConfig.RootCAs.Clone()
		}
		if !roots.AppendCertsFromPEM([]byte(l.CA)) {
			return nil, nil, errors.New("reading natsCA: there is no certificate in it")
		}
		options.TLSConfig.RootCAs = roots
	}
	s := &subscriber{options: options, env: env}
	s.hub = endpoint.NewHub(env.Shared, "NATS", env.Log, s.session)
	return s, s.hub.Close, nil
}

func (s *subscriber) session(ctx context.Context, h *endpoint.Hub[interest]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options := s.options
	options.CustomDialer = &dialer{session: ctx, dial: endpoint.Until(ctx, s.env.Dial)}
	options.ClosedCB = func(*nats.Conn) { cancel(errors.New("the connection to NATS was closed")) }
	options.ReconnectedCB = func(*nats.Conn) {
		keys, _ := h.Keys()
		for _, key := range keys {
			h.Wake(key)
		}
	}
	options.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) {
		s.env.Log.Warn("watching a stream of NATS: it is polled if this stays so", "error", err)
	}
	conn, err := options.Connect()
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer conn.Close()
	_ = h.Each(ctx, func(ctx context.Context, key interest) {
		err := listen(ctx, conn, h, key)
		if ctx.Err() != nil {
			return
		}
		s.env.Log.Debug("watching a stream of NATS by its lag instead", "stream", key.stream, "error", err)
		defer key.account.poller.Watch(consumer{key.stream, key.consumer}, func() { h.Wake(key) })()
		<-ctx.Done()
	})
	return context.Cause(ctx)
}

// listen wakes a key by the first message to its stream, again and again with pauses between.
func listen(ctx context.Context, conn *nats.Conn, h *endpoint.Hub[interest], key interest) error {
	subjects, err := key.account.subjects(ctx, key.stream)
	if err != nil {
		return err
	}
	pause := soon
	if key.mode == trigger.Active {
		pause = later
	}
	for {
		heard := make(chan struct{}, len(subjects))
		drop, err := subscribe(conn, subjects, heard)
		if err != nil {
			return err
		}
		h.Wake(key) // what came before went unheard
		select {
		case <-ctx.Done():
			drop()
			return ctx.Err()
		case <-heard:
			h.Wake(key)
		}
		drop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// subscribe asks for one message of each subject.
func subscribe(conn *nats.Conn, subjects []string, heard chan<- struct{}) (drop func(), err error) {
	var subscriptions []*nats.Subscription
	drop = func() {
		for _, subscription := range subscriptions {
			_ = subscription.Unsubscribe()
		}
	}
	for _, subject := range subjects {
		subscription, err := conn.Subscribe(subject, func(*nats.Msg) {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
		if err == nil {
			subscriptions = append(subscriptions, subscription)
			err = subscription.AutoUnsubscribe(1)
		}
		if err != nil {
			drop()
			return nil, err
		}
	}
	if err := conn.FlushTimeout(patience); err != nil && !conn.IsReconnecting() {
		drop()
		return nil, err
	}
	return drop, nil
}

// subjects returns what a stream takes in, if all of it is published to this account's subjects.
func (a *account) subjects(ctx context.Context, stream string) ([]string, error) {
	answer, err := a.ask(ctx, a.at.host)
	if err != nil {
		return nil, err
	}
	found := answer.stream(a.at, stream)
	if found == nil || len(found.Config.Subjects) == 0 || len(found.Config.Mirror) > 0 || len(found.Config.Sources) > 0 {
		return nil, errNoSubjects
	}
	return found.Config.Subjects, nil
}

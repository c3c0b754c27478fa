package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	plaintext   = "plaintext"
	scram256    = "scram_sha256"
	scram512    = "scram_sha512"
	oauthbearer = "oauthbearer"
	msk         = "aws_msk_iam"
	// handshake is how long TLS may take to begin.
	handshake = 10 * time.Second
)

// A login is where the brokers are and as whom to ask them.
type login struct {
	brokers            string // joined by commas
	tls                bool
	certificate        endpoint.Certificate
	sasl               string
	username, password string
	// for oauthbearer
	provider, scopes, endpoint, extensions string
}

func (l login) key() string { return fmt.Sprintf("%q", []any{l}) }

// A cluster is what triggers of one login share: a client, questions for offsets, and fetches at the
// ends of topics.
type cluster struct {
	client  *kgo.Client
	admin   *kadm.Client
	offsets *endpoint.Batch[query, *answer]
	ends    *endpoint.Hub[string] // by topic
	log     *slog.Logger
	denied  denied
	reached atomic.Bool // some broker answered
}

// reach waits until a broker answers, unless one ever did.
func (c *cluster) reach(ctx context.Context) error {
	if c.reached.Load() {
		return nil
	}
	if err := c.client.Ping(ctx); err != nil {
		return fmt.Errorf("reaching a broker: %w", err)
	}
	c.reached.Store(true)
	return nil
}

func connect(l login, env trigger.Environment) (*cluster, func(), error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(l.brokers, ",")...), kgo.ClientID("ebb"),
		kgo.RequestRetries(3), kgo.RetryTimeout(10 * time.Second), kgo.ConnIdleTimeout(5 * time.Minute),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.DisableClientMetrics(),
	}
	dial := env.Dial
	if l.tls {
		if (l.certificate.Cert == "") != (l.certificate.Key == "") {
			return nil, nil, errors.New("signing in to Kafka: cert and key must be given together")
		}
		config, err := l.certificate.TLS(env.TLS)
		if err != nil {
			return nil, nil, fmt.Errorf("signing in to Kafka: %w", err)
		}
		dial = secure(dial, config)
	}
	options = append(options, kgo.Dialer(dial))
	mechanism, err := l.mechanism(env)
	if err != nil {
		return nil, nil, fmt.Errorf("signing in to Kafka: %w", err)
	}
	if mechanism != nil {
		options = append(options, kgo.SASL(mechanism))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, nil, fmt.Errorf("reading bootstrapServers: %w", err)
	}
	c := &cluster{client: client, admin: kadm.NewClient(client), log: env.Log}
	c.offsets = endpoint.NewBatch(c.ask)
	c.ends = endpoint.NewHub(env.Shared, "Kafka at "+l.brokers, env.Log, c.session)
	return c, func() {
		c.ends.Close()
		client.Close()
	}, nil
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// secure puts TLS over what is dialled.
func secure(dial dialer, config *tls.Config) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mine := config.Clone()
		if host, _, err := net.SplitHostPort(address); err == nil && mine.ServerName == "" {
			mine.ServerName = host
		}
		limit, cancel := context.WithTimeout(ctx, handshake)
		defer cancel()
		secured := tls.Client(conn, mine)
		if err := secured.HandshakeContext(limit); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("beginning TLS with %s: %w", address, err)
		}
		return secured, nil
	}
}

func (l login) mechanism(env trigger.Environment) (sasl.Mechanism, error) {
	switch l.sasl {
	case "", "none":
		return nil, nil
	case plaintext, scram256, scram512:
		if l.username == "" {
			return nil, errors.New("no username given")
		}
		if l.password == "" {
			return nil, errors.New("no password given")
		}
		switch l.sasl {
		case plaintext:
			return plain.Auth{User: l.username, Pass: l.password}.AsMechanism(), nil
		case scram256:
			return scram.Auth{User: l.username, Pass: l.password}.AsSha256Mechanism(), nil
		default:
			return scram.Auth{User: l.username, Pass: l.password}.AsSha512Mechanism(), nil
		}
	case oauthbearer:
		if l.provider == msk {
			return nil, errors.New("saslTokenProvider aws_msk_iam is not built in; give the group a SCRAM user")
		}
		return l.bearer(env)
	default:
		return nil, fmt.Errorf("sasl %s is not built in; use plaintext, scram_sha256, scram_sha512 or oauthbearer", l.sasl)
	}
}

// bearer returns the mechanism that gets a token from an OAuth server by client credentials.
func (l login) bearer(env trigger.Environment) (sasl.Mechanism, error) {
	for _, part := range []struct{ name, value string }{
		{"username", l.username}, {"password", l.password}, {"oauth token endpoint uri", l.endpoint},
	} {
		if part.value == "" {
			return nil, fmt.Errorf("no %s given", part.name)
		}
	}
	extensions := map[string]string{}
	if l.extensions != "" {
		for extension := range strings.SplitSeq(l.extensions, ",") {
			name, value, ok := strings.Cut(extension, "=")
			if !ok || strings.Contains(value, "=") {
				return nil, errors.New("invalid OAuthBearer extension, must be of format key=value")
			}
			extensions[name] = value
		}
	}
	config := clientcredentials.Config{
		ClientID: l.username, ClientSecret: l.password, TokenURL: l.endpoint, Scopes: strings.Split(l.scopes, ","),
	}
	client := &http.Client{
		Timeout:   handshake,
		Transport: &http.Transport{DialContext: env.Dial, TLSClientConfig: env.TLS.Clone(), Proxy: http.ProxyFromEnvironment},
	}
	var mu sync.Mutex // guards token
	var token *oauth2.Token
	return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		mu.Lock()
		defer mu.Unlock()
		if !token.Valid() {
			var err error
			if token, err = config.Token(context.WithValue(ctx, oauth2.HTTPClient, client)); err != nil {
				return oauth.Auth{}, fmt.Errorf("getting a token: %w", err)
			}
		}
		return oauth.Auth{Token: token.AccessToken, Extensions: extensions}, nil
	}), nil
}

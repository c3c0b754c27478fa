package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// A Token is what requests are signed with until it expires.
type Token = oauth2.Token

// tokens keeps a token that all triggers with the same credentials use.
type tokens struct {
	batch *Batch[struct{}, *Token]

	mu   sync.Mutex // guards last
	last *Token
}

func newTokens(get func(ctx context.Context, client *http.Client) (*Token, error), client *http.Client) *tokens {
	t := &tokens{}
	t.batch = NewBatch(func(ctx context.Context, _ []struct{}) (map[struct{}]*Token, error) {
		token, err := get(ctx, client)
		if err != nil {
			return nil, fmt.Errorf("getting a token: %w", bare(err))
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.last = token
		return map[struct{}]*Token{{}: token}, nil
	})
	return t
}

// get returns a token that is valid still.
func (t *tokens) get(ctx context.Context) (*Token, error) {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	if last.Valid() {
		return last, nil
	}
	return t.batch.Do(ctx, struct{}{})
}

// A signer signs each request with a token.
type signer struct {
	tokens *tokens
	next   http.RoundTripper
}

func (s *signer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := s.tokens.get(r.Context())
	if err != nil {
		return nil, err
	}
	signed := r.Clone(r.Context())
	token.SetAuthHeader(signed)
	return s.next.RoundTrip(signed)
}

// OAuth has the client sign with tokens of the client credentials flow.
func (c *HTTPConfig) OAuth(a *Auth) {
	c.TokenKey = a.key()
	c.Token = func(ctx context.Context, client *http.Client) (*Token, error) {
		parameters, err := url.ParseQuery(a.TokenParameters)
		if err != nil {
			return nil, errors.New("endpointParams must be a query: name=value&name=value")
		}
		flow := clientcredentials.Config{
			ClientID: a.ClientID, ClientSecret: a.ClientSecret, TokenURL: a.TokenURI, Scopes: a.Scopes, EndpointParams: parameters,
		}
		if a.ClientSecret == "" {
			flow.AuthStyle = oauth2.AuthStyleInParams // the client is known by its certificate (RFC 8705)
		}
		token, err := flow.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
		return token, brief(err)
	}
}

// brief returns an error of getting a token without the server's answer, which may repeat what it was
// asked with.
func brief(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		return fmt.Errorf("the server says %s %s", refused.Response.Status, refused.ErrorCode)
	}
	return err
}

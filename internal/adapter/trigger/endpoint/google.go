package endpoint

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// Google has the client sign as a service account of Google Cloud, by its key as JSON, or as whatever
// the machine is there when that is empty.
func (c *HTTPConfig) Google(key, scope string) error {
	if key != "" {
		if _, err := google.JWTConfigFromJSON([]byte(key), scope); err != nil {
			return errors.New("the Google application credentials are not the key of a service account")
		}
	}
	c.TokenKey = "google " + scope + " " + key
	c.Token = func(ctx context.Context, client *http.Client) (*Token, error) {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
		tokens, err := googleTokens(ctx, key, scope)
		if err != nil {
			return nil, err
		}
		token, err := tokens.Token()
		return token, brief(err)
	}
	return nil
}

func googleTokens(ctx context.Context, key, scope string) (oauth2.TokenSource, error) {
	if key == "" {
		return google.DefaultTokenSource(ctx, scope)
	}
	account, err := google.JWTConfigFromJSON([]byte(key), scope)
	if err != nil {
		return nil, err
	}
	return account.TokenSource(ctx), nil
}

package endpoint

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Mode is a way to sign in over HTTP, as users write it.
type Mode string

// The modes.
const (
	APIKey Mode = "apiKey"
	Basic  Mode = "basic"
	Mutual Mode = "tls"
	Bearer Mode = "bearer"
	Custom Mode = "custom"
	OAuth  Mode = "oauth"
)

// Auth are the parameters by which upstream's triggers sign in over HTTP. A struct of parameters has
// it as a field with the tag `keda:"optional"`.
type Auth struct {
	Modes []Mode `keda:"name=authModes;authMode, order=triggerMetadata;authParams, enum=apiKey;basic;tls;bearer;custom;oauth, exclusiveSet=bearer;basic;oauth, optional"`

	BearerToken  string   `keda:"name=bearerToken;token, order=authParams, optional"`
	Username     string   `keda:"name=username, order=authParams, optional"`
	Password     string   `keda:"name=password, order=authParams, optional"`
	Cert         string   `keda:"name=cert, order=authParams, optional"`
	Key          string   `keda:"name=key, order=authParams, optional"`
	CA           string   `keda:"name=ca, order=authParams, optional"`
	TokenURI     string   `keda:"name=oauthTokenURI, order=authParams, optional"`
	Scopes       []string `keda:"name=scopes;scope, order=authParams, optional"`
	ClientID     string   `keda:"name=clientID, order=authParams, optional"`
	ClientSecret string   `keda:"name=clientSecret, order=authParams, optional"`
	// TokenParameters is a query. It is read by Validate as errors of TypedConfig quote values.
	TokenParameters string `keda:"name=endpointParams, order=authParams, optional"`
	Header          string `keda:"name=customAuthHeader, order=authParams, optional"`
	HeaderValue     string `keda:"name=customAuthValue, order=authParams, optional"`
	APIKey          string `keda:"name=apiKey, order=triggerMetadata;authParams, optional"`
	Method          string `keda:"name=method, order=triggerMetadata;authParams, default=header, enum=header;query"`
	KeyName         string `keda:"name=keyParamName, order=triggerMetadata;authParams, optional"`
}

// Has tells whether the trigger signs in that way, maybe among others.
func (a *Auth) Has(mode Mode) bool { return slices.Contains(a.Modes, mode) }

// Validate checks that each mode has what it needs.
func (a *Auth) Validate() error {
	a.Scopes = slices.DeleteFunc(a.Scopes, func(s string) bool { return s == "" })
	for _, needs := range []struct {
		mode    Mode
		lacks   bool
		message string
	}{
		{Bearer, a.BearerToken == "", fmt.Sprintf("bearer token=%s is required when bearer auth is enabled", presence(a.BearerToken))},
		{Basic, a.Username == "", fmt.Sprintf("username=%s is required when basic auth is enabled", presence(a.Username))},
		{
			Mutual, a.Cert == "" || a.Key == "",
			fmt.Sprintf("cert=%s and key=%s are required when tls auth is enabled", presence(a.Cert), presence(a.Key)),
		},
		{
			OAuth, a.TokenURI == "" || a.ClientID == "",
			fmt.Sprintf("oauthTokenURI=%s and clientID=%s are required when oauth is enabled", presence(a.TokenURI), presence(a.ClientID)),
		},
		{
			Custom, a.Header == "" || a.HeaderValue == "",
			fmt.Sprintf("customAuthHeader=%s and customAuthValue=%s are required when custom auth is enabled", presence(a.Header), presence(a.HeaderValue)),
		},
		{APIKey, a.APIKey == "", "apiKey is required when apiKey auth is enabled"},
	} {
		if needs.lacks && a.Has(needs.mode) {
			return errors.New(needs.message)
		}
	}
	if _, err := url.ParseQuery(a.TokenParameters); err != nil {
		return errors.New("endpointParams must be a query: name=value&name=value")
	}
	return nil
}

// Allow refuses all modes but those.
func (a *Auth) Allow(modes ...Mode) error {
	for _, mode := range a.Modes {
		if !slices.Contains(modes, mode) {
			return fmt.Errorf("auth mode %q is not supported by this scaler; supported modes: %v", mode, modes)
		}
	}
	return nil
}

func presence(value string) string {
	if value == "" {
		return "<empty>"
	}
	return "<present>"
}

// Certificate returns what the trigger shows and trusts.
func (a *Auth) Certificate(unsafe bool) Certificate {
	return Certificate{CA: a.CA, Cert: a.Cert, Key: a.Key, Unsafe: unsafe}
}

// Sign adds to a request what the trigger signs in with: a bearer token, a user or a header of its own,
// the first of them that is wanted.
func (a *Auth) Sign(r *http.Request) {
	switch {
	case a.Has(Bearer):
		r.Header.Set("Authorization", "Bearer "+a.BearerToken)
	case a.Has(Basic):
		r.SetBasicAuth(a.Username, a.Password)
	case a.Has(Custom):
		r.Header.Set(a.Header, a.HeaderValue)
	}
}

// SignKey adds the API key to a request, in a header or in its query.
func (a *Auth) SignKey(r *http.Request) {
	switch {
	case !a.Has(APIKey):
	case a.Method == "query":
		query := r.URL.Query()
		query.Set(either(a.KeyName, "api_key"), a.APIKey)
		r.URL.RawQuery = query.Encode()
	default:
		r.Header.Add(either(a.KeyName, "X-API-KEY"), a.APIKey)
	}
}

func either(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}

// key names what tokens depend on.
func (a *Auth) key() string {
	return fmt.Sprintf("oauth %q", []string{
		a.TokenURI, strings.Join(a.Scopes, " "), a.ClientID, a.ClientSecret, a.TokenParameters, a.Cert, a.Key, a.CA,
	})
}

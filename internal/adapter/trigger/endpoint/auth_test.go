package endpoint

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
)

type signing struct {
	TriggerIndex int
	Auth         Auth `keda:"optional"`
}

func read(metadata, auth map[string]string) (*Auth, error) {
	var p signing
	err := (&scalersconfig.ScalerConfig{TriggerMetadata: metadata, AuthParams: auth}).TypedConfig(&p)
	return &p.Auth, err
}

func TestAuthRefuses(t *testing.T) {
	for name, test := range map[string]struct{ metadata, auth, message string }{
		"an unknown mode":               {"authModes=magic", "", "must be one of"},
		"two modes of one header":       {"authModes=bearer,basic", "bearerToken=t;username=u", "must contain only one of"},
		"oauth and basic":               {"authModes=oauth,basic", "oauthTokenURI=u;clientID=c;username=u", "must contain only one of"},
		"bearer without a token":        {"authMode=bearer", "", "bearer token=<empty> is required when bearer auth is enabled"},
		"basic without a user":          {"authModes=basic", "password=hunter2", "username=<empty> is required when basic auth is enabled"},
		"tls without a key":             {"authModes=tls", "ca=a;cert=c", "cert=<present> and key=<empty> are required when tls auth is enabled"},
		"tls without a certificate":     {"authModes=tls,basic", "username=u;key=hunter2", "cert=<empty> and key=<present> are"},
		"oauth without an issuer":       {"authModes=oauth", "clientID=c;clientSecret=hunter2", "oauthTokenURI=<empty> and clientID=<present> are"},
		"oauth without a client":        {"authModes=oauth", "oauthTokenURI=u", "oauthTokenURI=<present> and clientID=<empty> are"},
		"custom without a header":       {"authModes=custom", "customAuthValue=hunter2", "customAuthHeader=<empty> and customAuthValue=<present> are"},
		"custom without a value":        {"authModes=custom", "customAuthHeader=h", "customAuthHeader=<present> and customAuthValue=<empty> are"},
		"apiKey without one":            {"authModes=apiKey", "", "apiKey is required when apiKey auth is enabled"},
		"an unknown way to give a key":  {"authModes=apiKey;method=post", "apiKey=hunter2", "must be one of"},
		"parameters that are no query":  {"authModes=oauth", "oauthTokenURI=u;clientID=c;endpointParams=hunter2%zz", "endpointParams must be a query"},
		"a mode among the credentials":  {"", "authModes=bearer", "bearer token=<empty>"},
		"parameters of no use that lie": {"", "endpointParams=hunter2%zz", "endpointParams must be a query"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(pairs(test.metadata), pairs(test.auth))
			if err == nil || !strings.Contains(err.Error(), test.message) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it fails with %v; want %q and no secret", err, test.message)
			}
		})
	}
}

func pairs(s string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			out[name] = value
		}
	}
	return out
}

func TestAuthSigns(t *testing.T) {
	for name, test := range map[string]struct {
		metadata, auth string
		want           map[string]string
		query          string
	}{
		"not at all":                {"", "bearerToken=t;username=u;apiKey=k", nil, "q=1"},
		"with a bearer token":       {"authModes=bearer", "bearerToken=t", map[string]string{"Authorization": "Bearer t"}, "q=1"},
		"with a token":              {"authMode=bearer", "token=t", map[string]string{"Authorization": "Bearer t"}, "q=1"},
		"with a user":               {"authModes=basic", "username=u;password=p", map[string]string{"Authorization": "Basic dTpw"}, "q=1"},
		"with a user alone":         {"authModes=basic", "username=u", map[string]string{"Authorization": "Basic dTo="}, "q=1"},
		"with a header of its own":  {"authModes=custom", "customAuthHeader=X-Me\n;customAuthValue=v\n", map[string]string{"X-Me": "v"}, "q=1"},
		"with two":                  {"authModes=tls, basic", "cert=c;key=k;username=u;password=p", map[string]string{"Authorization": "Basic dTpw"}, "q=1"},
		"with a key":                {"authModes=apiKey", "apiKey=k", map[string]string{"X-Api-Key": "k"}, "q=1"},
		"with a key in the trigger": {"authModes=apiKey;apiKey=k", "apiKey=other", map[string]string{"X-Api-Key": "k"}, "q=1"},
		"with a key in a header":    {"authModes=apiKey;keyParamName=X-Mine", "apiKey=k", map[string]string{"X-Mine": "k"}, "q=1"},
		"with a key in the query":   {"authModes=apiKey;method=query", "apiKey=k", nil, "api_key=k&q=1"},
		"with a key named so":       {"authModes=apiKey", "apiKey=k&;method=query;keyParamName=q", nil, "q=k%26"},
		"with a key and a token":    {"authModes=apiKey,bearer", "apiKey=k;token=t", map[string]string{"X-Api-Key": "k", "Authorization": "Bearer t"}, "q=1"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := read(pairs(test.metadata), pairs(test.auth))
			if err != nil {
				t.Fatal(err)
			}
			r, err := Get(t.Context(), "http://host/path?q=1")
			if err != nil {
				t.Fatal(err)
			}
			a.Sign(r)
			a.SignKey(r)
			got := map[string]string{}
			for header := range r.Header {
				got[header] = r.Header.Get(header)
			}
			if !maps.Equal(got, test.want) || r.URL.RawQuery != test.query {
				t.Errorf("signed with %v and %s; want %v and %s", got, r.URL.RawQuery, test.want, test.query)
			}
		})
	}
}

func TestAuthAllows(t *testing.T) {
	a := Auth{Modes: []Mode{Basic, Custom}}
	if err := a.Allow(Basic, Bearer); err == nil || err.Error() != `auth mode "custom" is not supported by this scaler; supported modes: [basic bearer]` {
		t.Errorf("it says %v", err)
	}
	if err := a.Allow(Custom, Basic); err != nil {
		t.Error(err)
	}
	r := &http.Request{Header: http.Header{}}
	(&Auth{Modes: []Mode{Bearer, Custom}, BearerToken: "t", Header: "X", HeaderValue: "v"}).Sign(r)
	if r.Header.Get("X") != "" {
		t.Error("it signed twice")
	}
}
